"""Deleting readings of a time range, and how far deletions are."""
