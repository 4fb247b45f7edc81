"""Codecs of a tenant, and their versions."""
