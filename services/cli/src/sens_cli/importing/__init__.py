"""Importing histories: lines of files, how far an import is, and the command's loop."""
