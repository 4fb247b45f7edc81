"""The HTTP ingestion worker: ``python -m sens_http_ingestion_worker``."""

import asyncio
from collections.abc import Mapping

from nats.aio.client import Client

from sens_common.envelope import OVERHEAD_BYTES
from sens_common.health import Check
from sens_common.ingestion.clock import ReceiptClock, last_slot
from sens_common.ingestion.limits import LimitsBucket
from sens_common.ingestion.rates import Rates
from sens_common.ingestion.states import StatesBucket
from sens_common.jetstream import connect, ensure_streams, nats_check
from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, serve_operations
from sens_common.readiness import not_started
from sens_common.tenant_limits import TenantLimits
from sens_http_ingestion_worker.as_keys import AsKeys
from sens_http_ingestion_worker.http import serve_http
from sens_http_ingestion_worker.jetstream import EnvelopeStream
from sens_http_ingestion_worker.keys import IngestKeys
from sens_http_ingestion_worker.pipeline import Pipeline
from sens_http_ingestion_worker.reception import Reception
from sens_http_ingestion_worker.settings import IngestionSettings
from sens_http_ingestion_worker.sources import HttpSources
from sens_http_ingestion_worker.status import IngestionStatus

SERVICE = "http-ingestion-worker"


async def main(settings: IngestionSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and work until the stop."""
    http = settings.http
    status = IngestionStatus()
    client = Client()
    checks: dict[str, Check] = {"nats": nats_check(client), "stream": not_started}
    notes: dict[str, Check] = {}
    async with (
        serve_operations(SERVICE, settings.operations, checks, Heartbeat(), status.describe, notes=notes),
        connect(settings.nats, f"{SERVICE} {http.publisher}", client=client, stop=stop),
    ):
        jetstream = client.jetstream()
        await ensure_streams(jetstream, settings.nats)
        clock = ReceiptClock(last_slot(http.publisher))
        stream = EnvelopeStream(client, settings.nats, http.publisher, clock)
        await stream.recall(stop)
        rates = Rates()
        keys = IngestKeys()
        as_keys = AsKeys(settings.sources.credentials_folder)
        await as_keys.read()
        sources = HttpSources(as_keys)

        def follow(limits: Mapping[str, TenantLimits]) -> None:
            keys.follow(limits)
            sources.follow(limits)

        limits = LimitsBucket(jetstream, rates, follow)
        await limits.read()
        states = StatesBucket(jetstream, http.publisher, [sources.states], settings.nats)
        for part in (clock, limits):
            part.export_metrics()
        max_envelope_bytes = client.max_payload - OVERHEAD_BYTES
        pipeline = Pipeline(stream, clock, max_envelope_bytes=max_envelope_bytes, answer_seconds=http.answer_seconds)
        reception = Reception(
            keys,
            rates,
            pipeline,
            sources,
            max_body_bytes=min(http.max_body_bytes, max_envelope_bytes - OVERHEAD_BYTES),
            max_bodies_bytes=http.max_bodies_bytes,
            https_only=settings.https.only,
        )
        status.watch(pipeline, reception)
        checks |= {"stream": stream.problems.check, "clock": clock.check, "limits": limits.check}
        notes |= {"as_keys": as_keys.problems.check, "source_states": states.problems.check}
        closed = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(limits.keep_reading(), name="read the tenants' limits"),
                group.create_task(as_keys.keep_reading(), name="read the AS keys"),
                group.create_task(states.keep_telling(), name="tell the sources' states"),
            ]
            group.create_task(pipeline.run(closed), name="publish what was posted")
            async with serve_http(reception, http):
                await stop.wait()
            closed.set()
            for task in beside:
                task.cancel()


if __name__ == "__main__":
    run(SERVICE, IngestionSettings, main)
