"""Profiles of a tenant: kinds of devices."""
