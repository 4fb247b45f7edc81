"""The audit: changes, and who made them."""
