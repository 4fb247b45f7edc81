"""Calibrations: from when on values of a device's metric are read with a scale and an offset."""
