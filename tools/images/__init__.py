"""Builds the images and tries them."""
