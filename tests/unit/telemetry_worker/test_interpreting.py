"""Topics lead to their devices, whatever else goes on."""

import asyncio
from collections.abc import Collection, Iterable

from sens_common.envelope import Message
from sens_telemetry_worker.decoders import decoder
from sens_telemetry_worker.interpreting import Interpreter
from sens_telemetry_worker.tenants import RegisteredDevices, Tenant
from support.memory import MemoryRegistry


class WaitingRegistry(MemoryRegistry):
    """A registry that lets others go on before it answers."""

    async def register_devices(
        self, wanted: Iterable[tuple[Tenant, str]], known_only: Collection[tuple[int, str]] = ()
    ) -> RegisteredDevices:
        await asyncio.sleep(0)
        return await super().register_devices(wanted, known_only)


def batch(*devices: str) -> list[Message]:
    return [Message(f"sens/v1/demo/{device}/telemetry", b'{"a": 1}', 1_700_000_000_000_000) for device in devices]


class TestCache:
    async def test_that_is_emptied_takes_no_device_from_another_batch(self) -> None:
        builder = Interpreter(WaitingRegistry({"demo": Tenant(1, "demo")}), decoder("native"), max_cached_topics=3)
        await builder.interpret(batch("d1"))
        interpreted = await asyncio.gather(
            builder.interpret(batch("d1", "d2")), builder.interpret(batch("d3", "d4", "d5"))
        )
        assert [None in part.devices for part in interpreted] == [False, False]
