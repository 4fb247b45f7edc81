"""The configuration that the chart gives its stores is one that real servers take and that holds what the services ask for."""

import asyncio
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from sens_cli.up.nats import embedded_program
from sens_common.database import connect as connect_database
from sens_common.errors import UnavailableError
from sens_common.jetstream import connect, ensure_streams
from sens_common.names import DEAD_LETTERS_STREAM, TELEMETRY_STREAM
from sens_common.settings import DatabaseSettings, NatsSettings
from support.chart import Render, needs_helm, render
from support.servers import HOST, accepts_connections, free_port, process, scratch_folder, wait_until

pytestmark = needs_helm

TOKEN = "token-of-a-test"


@pytest.fixture(scope="module")
def rendered() -> Render:
    return render({"nats": {"requireToken": True}})


@pytest.fixture
def server(rendered: Render) -> Iterator[tuple[NatsSettings, int]]:
    """A server with the chart's configuration at free ports, and its monitoring port."""
    with scratch_folder("sens-chart-nats-") as folder:
        port, monitoring = free_port(), free_port()
        text: str = rendered.find("ConfigMap", "nats").document["data"]["nats.conf"]
        for before, after in (
            ("port: 4222", f"port: {port}\nhost: {HOST}"),
            ("http_port: 8222", f"http_port: {monitoring}"),
            ('"/data/', f'"{folder}/'),
            ('"/tmp/', f'"{folder}/'),
            ("$POD_NAME", "test"),
            ("$NATS_TOKEN", TOKEN),
        ):
            assert before in text
            text = text.replace(before, after)
        configuration = Path(folder) / "nats.conf"
        configuration.write_text(text, encoding="utf-8")
        with process([str(embedded_program()), "--config", str(configuration)], Path(folder) / "log"):
            wait_until(lambda: accepts_connections(port), "NATS starts")
            environment = rendered.container("telemetry-worker").environment
            largest = int(environment["SENS_NATS__STREAM_MAX_BYTES"].value or "")
            url = f"nats://{HOST}:{port}"
            yield NatsSettings(url=url, token=SecretStr(TOKEN), stream_max_bytes=largest), monitoring


class TestNats:
    def test_has_room_for_both_streams(self, server: tuple[NatsSettings, int]) -> None:
        async def streams() -> set[str]:
            async with connect(server[0], "test") as client:
                await ensure_streams(client.jetstream(), server[0])
                return {info.config.name or "" for info in await client.jetstream().streams_info()}

        assert asyncio.run(streams()) == {TELEMETRY_STREAM, DEAD_LETTERS_STREAM}

    def test_answers_its_probes(self, server: tuple[NatsSettings, int], rendered: Render) -> None:
        container = rendered.container("nats")
        for probe in (container.startup_probe, container.liveness_probe, container.readiness_probe):
            assert probe is not None
            path = probe["httpGet"]["path"]
            wait_until(lambda path=path: _ok(server[1], path), f"{path} answers")  # type: ignore[misc]  # of a lambda's default

    def test_asks_for_the_token(self, server: tuple[NatsSettings, int]) -> None:
        async def log_in() -> None:
            async with connect(server[0].model_copy(update={"token": SecretStr("wrong")}), "test"):
                pass

        with pytest.raises(UnavailableError):
            asyncio.run(log_in())


def _ok(port: int, path: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


class TestDatabase:
    def test_knows_its_parameters(self, postgres: DatabaseSettings, rendered: Render) -> None:
        arguments = rendered.container("timescaledb").args
        given = {match[1] for argument in arguments if (match := re.match(r"([a-z_.]+)=", argument))}

        async def known() -> set[str]:
            connection = await connect_database(postgres, "test")
            try:
                return {row["name"] for row in await connection.fetch("SELECT name FROM pg_settings")}
            finally:
                await connection.close()

        # Those of TimescaleDB exist only where it is loaded.
        assert {name for name in given if not name.startswith("timescaledb.")} <= asyncio.run(known())
        assert "shared_preload_libraries" in given
