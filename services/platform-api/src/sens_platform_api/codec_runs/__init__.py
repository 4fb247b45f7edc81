"""Runs of codecs over messages that were received before."""
