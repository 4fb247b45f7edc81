"""Logins with which people of a tenant ask the database in SQL."""
