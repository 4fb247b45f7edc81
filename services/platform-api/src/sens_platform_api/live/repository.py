"""Meanings of live values in the database."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from sens_platform_api.live.meanings import DeviceMeanings, Meaning
from sens_platform_api.postgresql import Pool, TenantDatabase

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DatabaseMeanings:
    """The database, as `meanings.StoredMeanings`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def of_devices(self, tenant_id: int, devices: Collection[str]) -> Mapping[str, DeviceMeanings]:
        """See `meanings.StoredMeanings.of_devices`."""
        async with TenantDatabase(self._pool, tenant_id).transaction(patient=True) as connection:
            rows = await connection.fetch(
                "SELECT device, metric, unit, edges, scales, addends FROM sens.live_meanings($1)", list(devices)
            )
        found: dict[str, dict[str, Meaning]] = {}
        for device, metric, unit, edges, scales, addends in rows:
            times = [(edge - _EPOCH) // timedelta(microseconds=1) for edge in edges or ()]
            found.setdefault(device, {})[metric] = Meaning(unit, times, scales or (), addends or ())
        return found
