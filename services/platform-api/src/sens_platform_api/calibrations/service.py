"""Calibrations: listing, adding, removing."""

from typing import Protocol

from sens_platform_api.calibrations.repository import Added, Calibration, NewCalibration
from sens_platform_api.errors import InvalidRequestError, NotFoundError, TooManyError
from sens_platform_api.parameters import canonical_device


class Calibrations(Protocol):
    """The calibrations of one tenant, changed in the name of one caller."""

    async def of_device(self, device: str, *, with_removed: bool) -> list[Calibration] | None:
        """Return the calibrations of a device by metric and time, None when the tenant has no such device."""

    async def add(self, device: str, new: NewCalibration) -> Added:
        """Add a calibration, in the place of one that is valid from the same time."""

    async def remove(self, device: str, calibration: int) -> str:
        """Remove a calibration; return ``removed``, ``unknown_device``, or ``unknown``."""


async def of_device(calibrations: Calibrations, device: str, *, with_removed: bool = False) -> list[Calibration]:
    """Return the calibrations of a device by metric and time.

    Raises:
        NotFoundError: The tenant has no such device.
    """
    name = canonical_device(device)
    found = await calibrations.of_device(name, with_removed=with_removed)
    if found is None:
        raise NotFoundError(f"there is no device {name}")
    return found


async def add(calibrations: Calibrations, device: str, new: NewCalibration) -> Calibration:
    """Add a calibration, in the place of one that is valid from the same time; return it.

    Raises:
        NotFoundError: The tenant has no such device or metric.
        InvalidRequestError: The metric has no numbers.
        TooManyError: The metric of the device has too many calibrations.
    """
    name = canonical_device(device)
    added = await calibrations.add(name, new)
    match added.outcome:
        case "unknown_device":
            raise NotFoundError(f"there is no device {name}")
        case "unknown_metric":
            raise NotFoundError(f"there is no metric {new.metric}")
        case "not_a_number":
            raise InvalidRequestError.in_body(
                "metric", f"{new.metric} has no numbers, and only these can be calibrated"
            )
        case "too_many":
            raise TooManyError(f"{new.metric} of device {name} may have 100 calibrations; remove some first")
        case "too_many_ever":
            raise TooManyError(
                f"{new.metric} of device {name} has had 1,000 calibrations, with those that were removed, and may have no more"
            )
    for each in await of_device(calibrations, name):
        if each.id == added.id:
            return each
    raise NotFoundError(f"the calibration of {new.metric} of device {name} is removed again")


async def remove(calibrations: Calibrations, device: str, calibration: int) -> None:
    """Remove a calibration.

    Raises:
        NotFoundError: The tenant has no such device, or the device no such calibration that holds.
    """
    name = canonical_device(device)
    match await calibrations.remove(name, calibration):
        case "unknown_device":
            raise NotFoundError(f"there is no device {name}")
        case "unknown":
            raise NotFoundError(f"device {name} has no calibration {calibration} that holds")
