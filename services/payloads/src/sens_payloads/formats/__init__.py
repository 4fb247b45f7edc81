"""Network formats: one module each, with its `Settings` and its `unwrap`."""
