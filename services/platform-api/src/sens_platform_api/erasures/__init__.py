"""Erasing what is stored of a device on request, with a receipt."""
