"""Runs JavaScript codecs in processes that can read, write and compute, and nothing else.

`sandboxes` is what others use; `process` holds one child, `child` is what runs in it, `lockdown` takes its rights away.
"""
