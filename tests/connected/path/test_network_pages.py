"""Who follows the page of a network sees a value: its commands and its message, on one stack. So do the examples of dead letters.

A real Mosquitto stands for the networks' brokers: it asks for users, passwords and certificates, lets each user read the topics of its
account, and has the certificate of an authority that this stack's system trusts.
"""

import asyncio
import json
import re
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import aiomqtt
import pytest

from sens_common.brokers import address_of, allowing
from sens_common.dead_letters import Reason
from sens_common.migrations import migrate
from sens_common.nats_permissions import HTTP_INGESTION_USER
from sens_common.settings import NatsSettings
from support.api import make_tenant, running_api, set_environment
from support.brokers import mock_broker, mosquitto, passwords
from support.certificates import Authority
from support.databases import Databases
from support.played_pages import Command, Reader, Section, latest_values, page, sections
from support.programs import Programs
from support.servers import HOST, execute_as, free_port, nats_server, scratch_folder, wait_until
from support.workers import Publisher, TelemetryPath, Worker, running_path
from tools.reference.reasons import HELP

pytestmark = pytest.mark.timeout(
    400
)  # on a machine with much else to do: a stack and all pages; half a minute on two free cores

PAGES = ("netmore", "chirpstack", "the-things-stack", "actility")
NATIVE = "sens/v1/examples/example/telemetry"
AUTHORITIES = "authorities.pem"
DEVICE = "0004a30b001c0530"


class Account(NamedTuple):
    """What somebody has at a network.

    Attributes:
        page: Of the network.
        section: About its broker.
        brokers: Where the page says that they are.
        files: Which the network has given, by name.
        topics: What it publishes to, by the names of the page's sources.
    """

    page: str
    section: str
    brokers: dict[str, str]
    files: dict[str, str]
    topics: dict[str, str]


ACCOUNTS = (
    Account(
        "netmore",
        "By MQTT instead",
        {"mq.netmoregroup.com:8883": "password", "mqtt.netmoregroup.com:8883": "certificate"},
        {"password.txt": "portal's\n"},
        {"netmore-portal": "sensor/acme/plant/payload", "netmore-connect": "client/c123/sensor/1"},
    ),
    Account(
        "the-things-stack",
        "By MQTT instead",
        {"eu1.cloud.thethings.network:8883": "at most once"},
        {"api-key.txt": "key of the application"},
        {"tts-mqtt": "v3/greenhouse@ttn/devices/bed-3/up"},
    ),
    Account(
        "actility",
        "4. Let ThingPark publish",
        {"broker.example.org:8883": "password"},
        {"password.txt": "own"},
        {"thingpark-broker": "thingpark/0004A30B001C0530/uplink"},
    ),
    Account(
        "chirpstack",
        "A broker that ChirpStack has already",
        {"chirpstack.example.org:8883": "password"},
        {"password.txt": "own"},
        {"chirpstack-broker": f"application/greenhouse/device/{DEVICE}/event/up"},
    ),
)
USERS = {"anna@acme": "portal's", "greenhouse@ttn": "key of the application", "sens": "own", "network": "all"}
MAY_READ = {
    "anna@acme": "sensor/acme/#",
    "greenhouse@ttn": "v3/greenhouse@ttn/#",
    "sens": "#",
}


class Networks(NamedTuple):
    """The brokers of all networks: one program.

    Attributes:
        ports: By what a client needs there; the networks themselves publish at the plain one.
        authority: Who has signed its certificate.
    """

    ports: dict[str, int]
    authority: Authority

    def publish(self, topic: str, body: bytes) -> None:
        """Publish a message as a network does."""

        async def work() -> None:
            async with aiomqtt.Client(HOST, self.ports["plain"], username="network", password=USERS["network"]) as it:
                await it.publish(topic, body, qos=1)

        asyncio.run(work())


@contextmanager
def networks(folder: Path) -> Iterator[Networks]:
    """Run the brokers of the networks; the one with passwords has the settings of the page about ThingPark."""
    authority = Authority(folder, "Public authority", key_usage="keyCertSign,cRLSign")
    server = authority.certificate("localhost", 30)
    ports = {each: free_port() for each in ("password", "certificate", "at most once", "plain")}
    keys = [f"certfile {server.file}", f"keyfile {server.key}"]
    page_of_mosquitto = page(
        "networks/actility.md",
        {
            "/etc/mosquitto/broker.crt": str(server.file),
            "/etc/mosquitto/broker.key": str(server.key),
            "/etc/mosquitto/passwords": str(passwords(folder, USERS)),
        },
    )
    listener, *lines = page_of_mosquitto.files["mosquitto.conf"].splitlines()
    assert listener == "listener 8883"
    rights = folder / "rights"
    reading = [f"user {user}\ntopic read {topic}" for user, topic in MAY_READ.items()]
    writing = "user network\ntopic write #"
    rights.write_text("\n".join(["pattern read client/%u/#", *reading, writing, ""]), encoding="utf-8")
    access = [
        *lines,
        f"acl_file {rights}",
        f"listener {ports['certificate']} {HOST}", *keys, f"cafile {authority.root.file}",
        "require_certificate true", "use_identity_as_username true",
        f"listener {ports['at most once']} {HOST}", *keys, "max_qos 0",
        f"listener {ports['plain']} {HOST}",
    ]  # fmt: skip
    with mosquitto(ports["password"], access=access):
        yield Networks(ports, authority)


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
        home: Folder with what the operator keeps: the credentials of brokers, and authorities.
    """

    path: TelemetryPath
    http: str
    home: Path


def of_brokers(home: Path) -> dict[str, str]:
    """Return the settings that let sources have brokers of their own, on this machine alone."""
    return {
        "SENS_BROKERS__ALLOWED_HOSTS": '["localhost:*"]',
        "SENS_BROKERS__CREDENTIALS_FOLDER": str(home / ".sens/brokers"),
        "SSL_CERT_FILE": str(home / AUTHORITIES),
    }


@pytest.fixture(scope="module")
def stack(databases: Databases) -> Iterator[Stack]:
    """A stack that the commands find by their environment."""
    with (
        mock_broker() as broker,
        scratch_folder("sens-nats-") as folder,
        nats_server(folder) as nats,
        databases.new(migrate) as database,
        running_path(broker, nats, database, of_brokers(folder)) as path,
        http_ingestion(nats, folder) as http,
        running_api(folder, database, nats) as api,
        pytest.MonkeyPatch.context() as patch,
    ):
        set_environment(patch, database=database)
        patch.setenv("SENS_API_URL", api.url)
        patch.setenv("SENS_MQTT_URL", f"mqtt://{HOST}:{broker.port_v5}")
        patch.setenv("COLUMNS", "200")
        yield Stack(path, http, folder)


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


class Played(NamedTuple):
    """What somebody with an account has done.

    Attributes:
        person: Who.
        page: Of the network.
        sources: What it publishes to, by the names of the sources.
    """

    person: Reader
    page: Section
    sources: dict[str, str]


class Operator:
    """Who has the machine of the platform: gives credentials, and allows brokers."""

    def __init__(self, stack: Stack, network: Networks, programs: Programs) -> None:
        self._stack = stack
        self._network = network
        self._programs = programs
        self._client = network.authority.certificate("c123", 30, usage="clientAuth")
        shutil.copy(network.authority.root.file, stack.home / AUTHORITIES)
        (stack.home / ".sens").mkdir(exist_ok=True)
        programs.put("sens", "print(os.environ['SENS_BROKERS__ALLOWED_HOSTS'], file=(here / 'allowed').open('w'))")

    def play(self, account: Account, person: Reader, tenant: str) -> Played:
        """Do all that a page says about the broker of a network."""
        replaced = {host: f"localhost:{self._network.ports[kind]}" for host, kind in account.brokers.items()}
        replaced["brokers/demo/"] = f"brokers/{tenant}/"
        name = f"networks/{account.page}.md"
        whole = page(name, replaced)
        section = next(each for each in sections(name, replaced) if each.name == f"{name}, {account.section}")
        self._give(account, person)
        person.write(whole)
        for script in section.scripts:
            person.run(script)
        profiles = [each for each in whole.parts()[0] if each.words[0] in {"codecs", "profiles"}]
        for command in profiles + section.commands:
            if "--broker" in command.words:
                self._see_that_it_is_allowed(command)
            do(person, section, command)
        return Played(person, whole, account.topics)

    def _give(self, account: Account, person: Reader) -> None:
        """Give what comes from the network, and a way to the platform's data folder."""
        (person.folder / ".sens").symlink_to(self._stack.home / ".sens")
        for file, content in account.files.items():
            (person.folder / file).write_text(content, encoding="utf-8")
        shutil.copy(self._network.authority.root.file, person.folder / "ca.crt")
        shutil.copy(self._client.file, person.folder / "tls.crt")
        shutil.copy(self._client.key, person.folder / "tls.key")

    def _see_that_it_is_allowed(self, command: Command) -> None:
        """See that the page has allowed the broker that the command names; the worker itself allows all on this machine."""
        allowed = json.loads((self._programs.folder / "allowed").read_text())
        address = address_of(command.words[command.words.index("--broker") + 1])
        assert allowing(allowed, address), f"{command}: allowed are {allowed}"


class TestBrokersOfNetworks:
    def test_are_connected_to_as_the_pages_say_and_lead_to_the_same_values(
        self, stack: Stack, reader: Callable[[str], Reader], tmp_path: Path, programs: Programs
    ) -> None:
        with networks(tmp_path) as network:
            operator = Operator(stack, network, programs)
            tenants = [f"{account.page}-broker" for account in ACCOUNTS]
            played = [
                operator.play(account, reader(tenant), tenant)
                for account, tenant in zip(ACCOUNTS, tenants, strict=True)
            ]
            for person, whole, sources in played:
                _, _, latest, _ = whole.parts()
                shown = latest_values(latest.shown)
                for number, topic in enumerate(sources.values()):
                    device = f"{DEVICE[:-1]}{number}"  # so that each source shows values of its own
                    body = re.sub(DEVICE, device, whole.files["uplink.json"], flags=re.IGNORECASE).encode()
                    command = Command("sens", ("latest", device))

                    def is_there(
                        person: Reader = person,
                        topic: str = topic,
                        body: bytes = body,
                        command: Command = command,
                        shown: object = shown,
                    ) -> bool:
                        network.publish(topic, body)
                        return latest_values(person.play(command).output) == shown

                    wait_until(is_there, f"{whole.name}: {command} shows {sorted(shown)}")
                kind = "connected: at_most_once" if "things" in whole.name else "connected"

                def are_connected(
                    person: Reader = person, sources: Mapping[str, str] = sources, kind: str = kind
                ) -> bool:
                    states = person.play(Command("sens", ("sources", "list"))).output
                    return set(re.findall(rf"^(\S+) .*  {kind}$", states, re.MULTILINE)) == sources.keys()

                # A worker that had no turn for a while has not told its states.
                wait_until(are_connected, f"{whole.name}: its sources are {kind}")


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
