"""Codecs: how the bytes of a device become values.

Those that are built in are modules with a function `decode`; `javascript` is for those of tenants.
"""
