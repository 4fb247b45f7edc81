"""The telemetry worker's process on real servers: poison, the guard, live data."""

import asyncio
import contextlib
import json

from sens_common import live
from sens_common.jetstream import connect, flush_all
from sens_common.names import LIVE_INTEREST_SUBJECT
from sens_common.settings import DatabaseSettings, NatsSettings
from support.brokers import MqttBroker
from support.envelopes import TOPIC
from support.servers import wait_until
from support.workers import Publisher, TelemetryPath, running_path


class TestPoison:
    def test_that_only_the_database_refuses_is_isolated(self, path: TelemetryPath) -> None:
        path.fetch("ALTER TABLE sens.readings ADD CONSTRAINT no_666 CHECK (666 <> ALL (numbers))")
        with Publisher(path.broker) as publisher:
            publisher.publish_all(
                [
                    (TOPIC, json.dumps({"ts": 1_700_000_000 + n, "n": 666 if n == 42 else n}).encode())
                    for n in range(100)
                ]
            )
        path.wait_until_idle()
        assert [value[3] for value in path.values() if value[1] == "n"] == [n for n in range(100) if n != 42]
        assert path.telemetry.metric("sens_telemetry_messages_dead_lettered_total") == 1
        stored = path.fetch_stored("SELECT count(DISTINCT (device_id, ts))::int FROM stored_values")[0][0]
        counts = "SELECT stored::int, duplicate::int, dead_lettered::int, unaccounted::int FROM sens.conservation()"
        assert [tuple(row) for row in path.fetch(counts)] == [(stored, 0, 1, 0)]


def dead_letters_in(path: TelemetryPath) -> int:
    """Return how many dead letters there are."""
    return int(path.fetch("SELECT count(*) FROM sens.dead_letters")[0][0])


class TestGuard:
    def test_one_tenants_malformed_messages_stop_nobody(
        self, mqtt_broker: MqttBroker, nats: NatsSettings, database: DatabaseSettings
    ) -> None:
        everything = {"SENS_DEAD_LETTERS__MAX_SHARE": "0.9", "SENS_DEAD_LETTERS__WINDOW_MESSAGES": "1000"}
        with running_path(mqtt_broker, nats, database, everything) as path:
            path.fetch("INSERT INTO sens.tenants (name) VALUES ('hostile')")
            with Publisher(path.broker) as publisher:
                publisher.publish_all([(f"sens/v1/hostile/d{number % 20}/telemetry", b"{") for number in range(2000)])
                publisher.publish_all([(TOPIC, b'{"ts": 1700000000, "n": 1}')])
            path.wait_until_idle()
            assert [value[3] for value in path.values() if value[1] == "n"] == [1]
            assert path.telemetry.get("/readyz")[0] == 200
            assert path.telemetry.metric("sens_telemetry_rejected_tenants_count") == 1
            assert dead_letters_in(path) == 2000

    def test_stops_a_worker_that_rejects_all_tenants_which_says_so_and_goes_on_after_a_restart(
        self, path: TelemetryPath
    ) -> None:
        everything = path.telemetry.environment
        path.telemetry.stop()
        path.fetch("INSERT INTO sens.tenants (name, late_days) VALUES ('acme', 36500)")
        share, window = {"SENS_DEAD_LETTERS__MAX_SHARE": "0.5"}, {"SENS_DEAD_LETTERS__WINDOW_MESSAGES": "500"}
        path.telemetry.environment = {**everything, **share, **window}
        path.telemetry.start()
        path.telemetry.wait_until_ready()
        topics = [f"sens/v1/{tenant}/d{number}/telemetry" for tenant in ("demo", "acme") for number in range(10)]
        good = [
            (topic, f'{{"ts": {1_700_000_000 + second}, "n": 1}}'.encode()) for topic in topics for second in range(20)
        ]
        with Publisher(path.broker) as publisher:
            publisher.publish_all(good)
            publisher.publish_all([(topics[number % 20], b"{") for number in range(3000)])
            wait_until(lambda: path.telemetry.get("/readyz")[0] == 503, "the worker is not ready")
            publisher.publish_all(
                [(topics[0], f'{{"ts": {1_700_000_100 + second}, "n": 1}}'.encode()) for second in range(20)]
            )
        problem = json.loads(path.telemetry.get("/readyz")[1])["checks"]["dead_letter_share"]
        assert "SENS_DEAD_LETTERS__MAX_SHARE" in problem
        assert path.telemetry.get("/healthz")[0] == 200
        assert "every tenant's messages would be dead-lettered" in path.telemetry.log.read_text()
        assert dead_letters_in(path) < 3000
        path.telemetry.stop()
        path.telemetry.environment = everything
        path.telemetry.start()
        path.wait_until_idle()
        assert dead_letters_in(path) == 3000
        assert len([value for value in path.values() if value[1] == "n"]) == len(good) + 20


class TestLive:
    async def test_readings_are_published_to_who_is_interested(self, path: TelemetryPath) -> None:
        async def work() -> list[live.LiveReading]:
            readings: asyncio.Queue[list[live.LiveReading]] = asyncio.Queue()
            async with connect(path.nats, "test") as client:

                async def note(message: object) -> None:
                    readings.put_nowait(live.decode(message.data))  # type: ignore[attr-defined]  # nats-py's Msg

                await client.subscribe(live.subject("demo"), cb=note)
                with Publisher(path.broker) as publisher:
                    # Interest is not kept for a worker that begins to listen later, so it is shown again, as the API does.
                    for second in range(20):
                        await client.publish(LIVE_INTEREST_SUBJECT, b"demo")
                        await flush_all(client)
                        payload = f'{{"ts": {1_700_000_000 + second}, "open": true}}'
                        await asyncio.to_thread(publisher.publish, TOPIC, payload)
                        with contextlib.suppress(TimeoutError):
                            return await asyncio.wait_for(readings.get(), 1)
            return []

        [reading] = await work()
        assert (reading.device, reading.metric, reading.value) == ("d1", "open", True)
        assert reading.measured_at % 1_000_000 == 0
