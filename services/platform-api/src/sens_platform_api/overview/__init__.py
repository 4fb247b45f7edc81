"""A tenant's numbers."""
