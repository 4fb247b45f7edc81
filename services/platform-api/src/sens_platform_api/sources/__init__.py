"""Sources of a tenant: how other people's messages come in, and the test bench for them."""
