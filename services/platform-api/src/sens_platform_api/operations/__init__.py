"""What the platform needs to know of the process."""
