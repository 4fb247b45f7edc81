"""What scripts/ calls: programs for people who work on the platform, release it and run it."""
