"""The HTTP ingestion worker: ``python -m sens_http_ingestion_worker``."""

import asyncio

from nats.aio.client import Client

from sens_common.envelope import OVERHEAD_BYTES
from sens_common.health import Check
from sens_common.ingestion.clock import ReceiptClock, last_slot
from sens_common.ingestion.limits import LimitsBucket
from sens_common.ingestion.rates import Rates
from sens_common.jetstream import connect, ensure_streams, nats_check
from sens_common.lifecycle import run
from sens_common.operations import Heartbeat, serve_operations
from sens_common.readiness import not_started
from sens_http_ingestion_worker.http import serve_http
from sens_http_ingestion_worker.jetstream import EnvelopeStream
from sens_http_ingestion_worker.keys import IngestKeys
from sens_http_ingestion_worker.pipeline import Pipeline
from sens_http_ingestion_worker.reception import Reception
from sens_http_ingestion_worker.settings import IngestionSettings
from sens_http_ingestion_worker.status import IngestionStatus

SERVICE = "http-ingestion-worker"


async def main(settings: IngestionSettings, stop: asyncio.Event) -> None:
    """Wire the parts, and work until the stop."""
    http = settings.http
    status = IngestionStatus()
    client = Client()
    checks: dict[str, Check] = {"nats": nats_check(client), "stream": not_started}
    async with (
        serve_operations(SERVICE, settings.operations, checks, Heartbeat(), status.describe),
        connect(settings.nats, f"{SERVICE} {http.publisher}", client=client, stop=stop),
    ):
        jetstream = client.jetstream()
        await ensure_streams(jetstream, settings.nats)
        clock = ReceiptClock(last_slot(http.publisher))
        stream = EnvelopeStream(client, settings.nats, http.publisher, clock)
        await stream.recall(stop)
        rates = Rates()
        keys = IngestKeys()
        limits = LimitsBucket(jetstream, rates, keys.follow)
        await limits.read()
        for part in (clock, limits):
            part.export_metrics()
        max_envelope_bytes = client.max_payload - OVERHEAD_BYTES
        pipeline = Pipeline(stream, clock, max_envelope_bytes=max_envelope_bytes, answer_seconds=http.answer_seconds)
        reception = Reception(
            keys,
            rates,
            pipeline,
            max_body_bytes=min(http.max_body_bytes, max_envelope_bytes - OVERHEAD_BYTES),
            max_bodies_bytes=http.max_bodies_bytes,
            https_only=settings.https.only,
        )
        status.watch(pipeline, reception)
        checks |= {"stream": stream.problems.check, "clock": clock.check, "limits": limits.check}
        closed = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(limits.keep_reading(), name="read the tenants' limits")
            group.create_task(pipeline.run(closed), name="publish what was posted")
            async with serve_http(reception, http):
                await stop.wait()
            closed.set()
            reading.cancel()


if __name__ == "__main__":
    run(SERVICE, IngestionSettings, main)
