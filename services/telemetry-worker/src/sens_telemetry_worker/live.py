"""Live data: new readings of the tenants that somebody watches."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sens_common import live
from sens_common.formats import Format
from sens_telemetry_worker.batch import Batch


class LiveFeed(Protocol):
    """The way to the watchers."""

    def watched(self) -> set[str]:
        """Return the names of the tenants whose readings somebody wants to see."""

    async def publish(self, tenant: str, readings: Sequence[live.LiveReading]) -> None:
        """Send readings to the watchers of the tenant."""


class LivePublisher:
    """Publishes new readings; decodes only the messages of tenants that are watched."""

    def __init__(self, feed: LiveFeed, payload_format: Format) -> None:
        self._feed = feed
        self._format = payload_format

    async def publish(self, batch: Batch, new_values: NDArray[np.int64]) -> None:
        """Publish the readings of those messages of a batch that have new values (for each message their number), historical ones left out."""
        watched = self._feed.watched()
        if not watched:
            return
        readings: dict[str, list[live.LiveReading]] = {}
        for index in np.flatnonzero(new_values).tolist():
            device, message = batch.interpreted.devices[index], batch.messages[index]
            if device is not None and device.tenant.name in watched:
                readings.setdefault(device.tenant.name, []).extend(
                    live.LiveReading(device.name, *measurement)
                    for measurement in self._format.decode(message.payload, message.received_at)
                )
        for each in batch.interpreted.uplink_readings:
            device = each.device
            if new_values[each.message_index] and not each.is_historical and device.tenant.name in watched:
                readings.setdefault(device.tenant.name, []).extend(
                    live.LiveReading(device.name, name, each.measured_at, float(value) if type(value) is int else value)
                    for name, value in each.values.items()
                )
        for tenant, tenant_readings in readings.items():
            await self._feed.publish(tenant, tenant_readings)
