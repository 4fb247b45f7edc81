"""HTTP as a sender speaks it, byte by byte, to a connection without a network."""

import asyncio
import hashlib
from collections.abc import Mapping
from pathlib import Path

from sens_common.ingestion.rates import Rates
from sens_common.tenant_limits import IngestKey, TenantLimits
from sens_http_ingestion_worker.as_keys import AsKeys
from sens_http_ingestion_worker.http.connection import HttpConnection
from sens_http_ingestion_worker.http.server import HttpServer
from sens_http_ingestion_worker.keys import IngestKeys
from sens_http_ingestion_worker.reception import Done, Reception, Submission
from sens_http_ingestion_worker.settings import IngestionHttpSettings
from sens_http_ingestion_worker.sources import HttpSources
from support.clocks import Clock


def key_named(letter: str) -> str:
    """Return a text that has the form of a key."""
    return f"sens_{letter * 43}"


PUSH, NATIVE, ONE_DEVICE, EXPIRED = map(key_named, "pndx")
EXPIRES_AT = 1_700_000_000
STORED_AT = 1_780_000_000


def limits(**rates: int) -> dict[str, TenantLimits]:
    """Return what the bucket says: tenant ``demo`` with a key of each kind, and rates."""

    def key(text: str, source: str | None, device: str | None = None, expires_at: int | None = None) -> IngestKey:
        return IngestKey(hashlib.sha256(text.encode()).hexdigest(), source, device, expires_at)

    keys = (
        key(PUSH, "push"),
        key(NATIVE, None),
        key(ONE_DEVICE, None, "kitchen"),
        key(EXPIRED, "push", None, EXPIRES_AT),
    )
    return {"demo": TenantLimits(rates.get("demo"), ingest_keys=keys)}


class MemoryTaker:
    """Takes messages, and says what becomes of them when it is told to, as `reception.Taker`.

    Attributes:
        taken: What was taken and is not answered.
        submissions: All that was taken.
        discarded: Tenants that were over their rate.
        answers_at_once: Whether each message is stored as soon as it is taken.
    """

    def __init__(self) -> None:
        self.taken: list[tuple[Submission, Done]] = []
        self.submissions: list[Submission] = []
        self.discarded: list[str] = []
        self.answers_at_once = True

    def take(self, submission: Submission, done: Done) -> None:
        self.submissions.append(submission)
        if self.answers_at_once:
            done(None)
        else:
            self.taken.append((submission, done))

    def note_discarded(self, tenant: str) -> None:
        self.discarded.append(tenant)


class RecordingTransport(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.reading = True
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Post:
    """A connection to a worker without a network."""

    def __init__(
        self,
        settings: IngestionHttpSettings | None = None,
        *,
        https_only: bool = False,
        as_keys_folder: Path = Path("/nowhere"),
        **rates: int,
    ) -> None:
        self.taker = MemoryTaker()
        settings = settings or IngestionHttpSettings(max_body_bytes=10_000, max_bodies_bytes=1_000_000)
        self.keys = IngestKeys()
        self.keys.follow(limits(**rates))
        self.clock = Clock()
        limited = Rates(self.clock)
        limited.set({tenant: each.messages_per_second for tenant, each in limits(**rates).items()})
        as_keys = AsKeys(str(as_keys_folder))
        asyncio.run(as_keys.read())
        self.sources = HttpSources(as_keys, lambda: STORED_AT)
        self.sources.follow(limits())
        self.reception = Reception(
            self.keys,
            limited,
            self.taker,
            self.sources,
            max_body_bytes=settings.max_body_bytes,
            max_bodies_bytes=settings.max_bodies_bytes,
            https_only=https_only,
        )
        self.server = HttpServer(self.reception, settings)
        self.connection, self.transport = self.connected()

    def connected(self) -> tuple[HttpConnection, RecordingTransport]:
        """Return another connection."""
        connection, transport = HttpConnection(self.server), RecordingTransport()
        connection.connection_made(transport)
        return connection, transport

    def feed(self, data: bytes, connection: HttpConnection | None = None) -> None:
        """Let bytes come."""
        connection = connection or self.connection
        while data:
            buffer = connection.get_buffer(-1)
            part, data = data[: len(buffer)], data[len(buffer) :]
            buffer[: len(part)] = part
            connection.buffer_updated(len(part))

    def post(self, path: str, body: bytes = b"{}", headers: Mapping[str, str] | None = None, key: str = "") -> int:
        """Send a request; return the status of its answer, 0 when there is none yet."""
        before = len(self.transport.written)
        self.feed(request(path, body, headers, key))
        answer = self.transport.written[before:]
        return int(answer.split()[1]) if answer else 0

    @property
    def answers(self) -> list[int]:
        """The statuses of all answers, in their order."""
        return statuses(self.transport.written)


def request(
    path: str, body: bytes = b"{}", headers: Mapping[str, str] | None = None, key: str = "", method: str = "POST"
) -> bytes:
    """Return a request as bytes."""
    fields = {"host": "sens", "content-length": str(len(body)), **(headers or {})}
    if key:
        fields["authorization"] = f"Bearer {key}"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def statuses(written: bytes) -> list[int]:
    """Return the statuses in what a worker wrote."""
    return [int(part[:3]) for part in written.split(b"HTTP/1.1 ")[1:]]
