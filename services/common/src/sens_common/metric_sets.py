"""What everything that writes readings keeps to."""

from typing import Final

MAX_SETS_OF_DEVICE: Final = 64
"""A device that has more is stored with the union of its sets, so that a device whose metrics change all the time has few."""
