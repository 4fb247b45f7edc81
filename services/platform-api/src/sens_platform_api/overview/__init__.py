"""What a tenant has, in numbers."""
