"""API keys, and whose requests carry them."""
