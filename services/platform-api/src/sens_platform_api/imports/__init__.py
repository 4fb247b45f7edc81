"""Imports: histories that come in bulk, through the stream like everything else."""
