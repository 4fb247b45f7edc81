"""Who follows the page of a network sees a value: its commands and its message, on one stack. So do the examples of dead letters."""

import asyncio
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from sens_common.dead_letters import Reason
from sens_common.migrations import migrate
from sens_common.nats_permissions import HTTP_INGESTION_USER
from sens_common.settings import NatsSettings
from support.api import make_tenant, running_api, set_environment
from support.brokers import mock_broker
from support.databases import Databases
from support.played_pages import Command, Reader, Section, latest_values, page, sections
from support.servers import HOST, execute_as, free_port, nats_server, scratch_folder, wait_until
from support.workers import Publisher, TelemetryPath, Worker, running_path
from tools.reference.reasons import HELP

PAGES = ("netmore", "chirpstack", "the-things-stack", "actility")
NATIVE = "sens/v1/examples/example/telemetry"


@contextmanager
def http_ingestion(nats: NatsSettings, folder: Path) -> Iterator[str]:
    """Run the HTTP ingestion worker; yield its address."""
    port = free_port()
    assert nats.password is not None
    environment = {
        "SENS_NATS__URL": nats.url,
        "SENS_NATS__USER": HTTP_INGESTION_USER,
        "SENS_NATS__PASSWORD": nats.password.get_secret_value(),
        "SENS_HTTP__PORT": str(port),
    }
    worker = Worker("sens_http_ingestion_worker", environment, free_port(), folder / "http.log")
    worker.start()
    try:
        worker.wait_until_ready()
        yield f"http://{HOST}:{port}"
    finally:
        worker.stop(signal.SIGKILL)


class Stack(NamedTuple):
    """What the commands of the pages work with.

    Attributes:
        path: From the broker to the database.
        http: Address of the HTTP ingestion worker.
    """

    path: TelemetryPath
    http: str


@pytest.fixture(scope="module")
def stack(databases: Databases) -> Iterator[Stack]:
    """A stack that the commands find by their environment."""
    with (
        mock_broker() as broker,
        scratch_folder("sens-nats-") as folder,
        nats_server(folder) as nats,
        databases.new(migrate) as database,
        running_path(broker, nats, database) as path,
        http_ingestion(nats, folder) as http,
        running_api(folder, database, nats) as api,
        pytest.MonkeyPatch.context() as patch,
    ):
        set_environment(patch, database=database)
        patch.setenv("SENS_API_URL", api.url)
        patch.setenv("SENS_MQTT_URL", f"mqtt://{HOST}:{broker.port_v5}")
        patch.setenv("COLUMNS", "200")
        yield Stack(path, http)


@pytest.fixture
def reader(stack: Stack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Reader]:
    """Return a reader as a new tenant, which takes messages of any age."""

    def of(tenant: str) -> Reader:
        key = make_tenant(stack.path.database, tenant)
        asyncio.run(
            execute_as(stack.path.database, f"UPDATE sens.tenants SET late_days = 36500 WHERE name = '{tenant}'")  # noqa: S608
        )
        folder = tmp_path / tenant
        folder.mkdir()
        return Reader(folder, key, capsys)

    return of


def do(reader: Reader, section: Section, command: Command) -> None:
    code, output = reader.play(command)
    assert code == 0, f"{section.name}: {command}\n{output}"


class TestPages:
    def test_lead_to_the_values_that_they_show(self, stack: Stack, reader: Callable[[str], Reader]) -> None:
        played = []
        for name in PAGES:
            replaced = {
                "http://127.0.0.1:8090": stack.http,
                "--tenant demo": f"--tenant {name}",
                "/v1/demo/": f"/v1/{name}/",
            }
            played.append((reader(name), page(f"networks/{name}.md", replaced)))
        house = reader("house")
        played += [(house, section) for section in sections("networks/house.md", {})]
        for person, section in played:
            person.write(section)
            for command in section.parts()[0]:
                do(person, section, command)
        for person, section in played:
            _, send, latest, after = section.parts()
            shown = latest_values(latest.shown)
            assert shown, section.name

            def is_there(
                person: Reader = person, send: Command = send, latest: Command = latest, shown: object = shown
            ) -> bool:
                # A new topic and a new key work within seconds.
                return person.play(send).code == 0 and latest_values(person.play(latest).output) == shown

            wait_until(is_there, f"{section.name}: {latest} shows {sorted(shown)}")
            for command in after:
                do(person, section, command)


class TestExamplesOfReasons:
    def test_become_dead_letters_of_these_reasons(self, stack: Stack) -> None:
        path = stack.path
        messages = [
            (reason, span if "/v1/" in span else NATIVE, "{}" if "/v1/" in span else span)
            for reason, help_ in HELP.items()
            if re.fullmatch(r"(`[^`]+` ?)+", help_.example)
            for span in re.findall(r"`([^`]+)`", help_.example)
        ]
        make_tenant(path.database, "examples")
        asyncio.run(execute_as(path.database, "UPDATE sens.tenants SET late_days = 5000 WHERE name = 'examples'"))
        with Publisher(path.broker) as publisher:
            for _, topic, payload in messages:
                publisher.publish(topic, payload)
        path.wait_until_idle()

        letters = path.fetch("SELECT reason, topic, convert_from(payload, 'UTF8') AS payload FROM sens.dead_letters")
        found = {(row["topic"], row["payload"]): row["reason"] for row in letters}
        expected = {(topic, payload): str(reason) for reason, topic, payload in messages}
        first_of_conflict = next(
            (topic, payload) for reason, topic, payload in messages if reason is Reason.CONFLICTING_VALUE
        )
        assert expected.pop(first_of_conflict) == Reason.CONFLICTING_VALUE
        assert len(expected) > 8
        assert {message: found.get(message) for message in expected} == expected
        assert first_of_conflict not in found
