"""Runs of codecs: beginning, following, cancelling. A telemetry worker does them."""

from datetime import datetime
from typing import Protocol

from sens_platform_api.codec_runs.repository import Begun, Order, Run
from sens_platform_api.errors import InUseError, InvalidRequestError, NotFoundError
from sens_platform_api.parameters import canonical_device


class Runs(Protocol):
    """The runs of one tenant, asked for in the name of one caller."""

    async def begin(self, order: Order) -> Begun:
        """Begin a run, unless another one is not finished."""

    async def get(self, run: int) -> Run | None:
        """Return a run, None when the tenant has none with this number."""

    async def newest(self, *, before: int | None, limit: int) -> list[Run]:
        """Return runs with numbers below one, the newest first."""

    async def cancel(self, run: int) -> str:
        """Cancel a run; return ``cancelled``, ``finished``, or ``unknown``."""


async def begin(runs: Runs, order: Order, *, now: datetime, is_open: bool) -> Run:
    """Begin a run; one that does the same and is not finished is returned in its place.

    Args:
        runs: The tenant's.
        order: What it is to do; its end is not after now.
        now: The present.
        is_open: Whether no end was asked for: then the same run has begun with an earlier one.

    Raises:
        InvalidRequestError: The range is empty.
        NotFoundError: There is no such device, codec, version or source.
        InUseError: Another run is not finished.
    """
    if order.device is not None:
        order = order._replace(device=canonical_device(order.device))
    order = order._replace(past=min(order.past, now))
    if order.first >= order.past:
        raise InvalidRequestError.in_body("from", "it is not before to, or lies in the future")
    match await runs.begin(order):
        case Begun("unknown_device", _):
            raise NotFoundError(f"there is no device {order.device}")
        case Begun("unknown_codec", _):
            shown = " or ".join(f"{order.codec}@{number}" for number in (order.other_number, order.number) if number)
            raise NotFoundError(f"there is no codec {shown}")
        case Begun("unknown_source", _):
            raise NotFoundError(f"there is no source {order.source}")
        case Begun("running", number) if number is not None:
            running = await get(runs, number)
            if running.order._replace(past=order.past if is_open else running.order.past) != order:
                raise InUseError(
                    f"run {number} is not finished, and a tenant has one at a time; wait for it, or cancel it"
                )
            return running
        case Begun(_, number) if number is not None:
            return await get(runs, number)
    raise NotFoundError("the run is gone")


async def get(runs: Runs, run: int) -> Run:
    """Return a run.

    Raises:
        NotFoundError: The tenant has none with this number.
    """
    found = await runs.get(run)
    if found is None:
        raise NotFoundError(f"there is no run {run}")
    return found


async def cancel(runs: Runs, run: int) -> Run:
    """Cancel a run, and return it; what it has stored stays. Of one that is finished nothing changes.

    Raises:
        NotFoundError: The tenant has none with this number.
    """
    await runs.cancel(run)
    return await get(runs, run)
