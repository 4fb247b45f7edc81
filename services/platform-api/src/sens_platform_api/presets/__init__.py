"""Presets: rules for messages of well-known programs and devices, to start a source from."""
