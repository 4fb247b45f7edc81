"""The commands of ``sens``, one module for each subject.

They import what they need when they are called: ``sens version`` starts without an HTTP library, ``sens up`` without the others'.
"""
