"""The tenant that must not notice: its messages are published, stored and read, one after the other, all the while."""

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import aiomqtt
import httpx2

from tools.abuse.target import BYSTANDER, Target

DEVICE: Final = "meter"
PATIENCE_SECONDS: Final = 30.0
_PAUSE_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 0.05


class Probe(NamedTuple):
    """One message's way.

    Attributes:
        began: When it was published, seconds of the monotonic clock.
        seconds: Until it was read over the API; None when it was not within `PATIENCE_SECONDS`.
        problem: What went wrong meanwhile, None when nothing did.
    """

    began: float
    seconds: float | None
    problem: str | None


class Bystander:
    """Publishes a value, reads until it is there, and begins again.

    Attributes:
        probes: What was seen, oldest first.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._numbers = itertools.count(int(time.time() * 1000))
        self.probes: list[Probe] = []

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Work while the context is open."""
        task = asyncio.create_task(self._work(), name="bystander")
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _work(self) -> None:
        instance = self._target.instance
        headers = self._target.headers(self._target.bystander_key)
        async with httpx2.AsyncClient(base_url=instance.api_url, headers=headers, timeout=5, trust_env=False) as api:
            while True:
                try:
                    async with self._target.mqtt() as client:
                        while True:
                            self.probes.append(await self._probe(client, api))
                            await asyncio.sleep(_PAUSE_SECONDS)
                except aiomqtt.MqttError as error:
                    self.probes.append(Probe(time.monotonic(), None, f"broker: {error}"))
                    await asyncio.sleep(1)

    async def _probe(self, client: aiomqtt.Client, api: httpx2.AsyncClient) -> Probe:
        number = next(self._numbers)
        began = time.monotonic()
        problem = None
        await client.publish(f"sens/v1/{BYSTANDER}/{DEVICE}/telemetry", json.dumps({"n": number}), qos=1)
        while (passed := time.monotonic() - began) < PATIENCE_SECONDS:
            try:
                answer = await api.get(f"/api/v1/devices/{DEVICE}/latest")
                if answer.is_success and any(each["value"] == number for each in answer.json()["latest"]):
                    return Probe(began, time.monotonic() - began, problem)
                if answer.is_error and answer.status_code != httpx2.codes.NOT_FOUND:
                    problem = f"API: status {answer.status_code}"
            except httpx2.HTTPError as error:
                problem = f"API: {type(error).__name__}"
            await asyncio.sleep(_LOOK_SECONDS)
        return Probe(began, None, problem or f"not visible after {passed:.0f} s")

    def since(self, began: float) -> list[Probe]:
        """Return the probes that ended after a moment, seconds of the monotonic clock."""
        return [probe for probe in self.probes if probe.began + (probe.seconds or PATIENCE_SECONDS) >= began]
