"""Looks for known vulnerabilities in the locked libraries."""
