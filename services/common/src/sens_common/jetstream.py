"""The NATS connection and the stream of envelopes. The service that starts first makes the stream; the others find it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

from sens_common.errors import UnavailableError, words_of
from sens_common.health import Check, Problems
from sens_common.names import TELEMETRY_STREAM, TELEMETRY_SUBJECT
from sens_common.nats_permissions import inbox_prefix
from sens_common.settings import NatsSettings
from sens_common.stopping import before_stop

log = structlog.get_logger()

DUPLICATE_WINDOW_SECONDS = 600.0
"""For how long JetStream recognises a publish that is tried again (header ``Nats-Msg-Id``)."""

_CONNECTION = "connection"
_NOT_CONNECTED = "not connected to NATS"
_CONNECT_TIMEOUT_SECONDS = 5
_FIRST_CONNECTION_SECONDS = 10
_STREAM_EXISTS = 10058  # JSStreamNameExistErr, nats-server server/errors.json


@contextlib.asynccontextmanager
async def connect(
    settings: NatsSettings, client_name: str, *, client: Client | None = None, stop: asyncio.Event | None = None
) -> AsyncIterator[Client]:
    """Keep a NATS connection open while the context is; it reconnects by itself for ever.

    Args:
        settings: Of the server.
        client_name: Shown in NATS' monitoring.
        client: The client to connect, for who wants to know its state meanwhile.
        stop: A service waits for the server until this is set; without it, the first connection has to succeed soon.

    Raises:
        UnavailableError: The server refuses us, or without `stop`: it can't be reached.
        StoppedError: `stop` was set before there was a connection.
    """
    client = client or Client()
    problems = Problems("nats")
    last_error = "no answer"
    closing = False

    def lost(why: str = "") -> None:
        if not closing:
            problems.set(_CONNECTION, _NOT_CONNECTED, why)

    async def report(error: Exception) -> None:
        nonlocal last_error
        last_error = words_of(error)
        if client.is_connected:  # a slow reader or a right that is missing; both are the server's or the client's words
            log.warning("nats reports an error", error=f"{type(error).__name__}: {error}".rstrip(": "))
        else:
            lost(last_error)

    async def disconnected() -> None:
        lost()

    async def reconnected() -> None:
        problems.clear(_CONNECTION)

    try:
        connecting = client.connect(
            [url.strip() for url in settings.url.split(",")],
            name=client_name,
            inbox_prefix=inbox_prefix(client_name),
            connect_timeout=_CONNECT_TIMEOUT_SECONDS,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=10,
            error_cb=report,
            disconnected_cb=disconnected,
            reconnected_cb=reconnected,
            **_credentials(settings),
        )
        if stop is not None:
            await before_stop(stop, connecting)
        else:
            async with asyncio.timeout(_FIRST_CONNECTION_SECONDS):
                await connecting
    except (NatsError, OSError, TimeoutError) as error:
        reason = str(error) or last_error
        raise UnavailableError(
            f"NATS at {settings.url} can't be reached or refuses us ({reason}); check SENS_NATS__*"
        ) from error
    problems.clear(_CONNECTION)
    try:
        yield client
    finally:
        closing = True
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            async with asyncio.timeout(2):
                await client.flush()
        await client.close()


async def flush_all(client: Client, timeout_seconds: int = 10) -> None:
    """Return when the server has read all that the client was given before.

    `Client.flush` alone does not say that: its PING overtakes what is not written yet (nats-py 2.16), a subscription that was made just
    before for example. By the time of its answer all is written, and a second PING comes after it.

    Raises:
        nats.errors.Error: The connection is closed, or there is no answer in time.
    """
    for _ in range(2):
        await client.flush(timeout_seconds)


def _credentials(settings: NatsSettings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.user is not None:
        options["user"] = settings.user
    if settings.password is not None:
        options["password"] = settings.password.get_secret_value()
    if settings.token is not None:
        options["token"] = settings.token.get_secret_value()
    if settings.credentials_file is not None:
        options["user_credentials"] = settings.credentials_file
    if settings.ca_file is not None:
        options["tls"] = ssl.create_default_context(cafile=settings.ca_file)
    return options


def nats_check(client: Client) -> Check:
    """Return the readiness check of the connection."""

    async def check() -> str | None:
        return None if client.is_connected else _NOT_CONNECTED

    return check


def nats_note(client: Client) -> Check:
    """Return what says that the server lets everybody in, where it does; for `sens_common.operations.noted`."""

    async def note() -> str | None:
        # What the server says of itself when a client connects (NATS documentation, "Client Protocol", INFO); the library has no name for it.
        asks = client._server_info.get("auth_required", False)  # noqa: SLF001 - see above
        if asks or not client.is_connected:
            return None
        return (
            "NATS asks for no password, so that whoever reaches it may do everything with it: give each service a user of its own"
            " (in a cluster, perServiceCredentials)"
        )

    return note


async def ensure_streams(jetstream: JetStreamContext, settings: NatsSettings) -> None:
    """Create the stream of envelopes if it does not exist; leave it as its operator made it if it does.

    Raises:
        UnavailableError: JetStream does not answer, or refuses.
    """
    wanted = StreamConfig(
        name=TELEMETRY_STREAM,
        description="Envelopes of MQTT messages as published; everything that is stored comes from them",
        subjects=[f"{TELEMETRY_SUBJECT}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        # A full stream refuses what comes, so that publishers wait: nothing is discarded before it is stored.
        discard=DiscardPolicy.NEW,
        max_bytes=settings.stream_max_bytes,
        num_replicas=settings.replicas,
        duplicate_window=DUPLICATE_WINDOW_SECONDS,
        allow_direct=True,
    )
    try:
        await _ensure_stream(jetstream, wanted)
    except (NatsError, TimeoutError) as error:
        raise UnavailableError(
            f"JetStream refuses or does not answer for stream {wanted.name}: {words_of(error)}"
        ) from error


async def _ensure_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    assert config.name is not None  # noqa: S101 - for the type checker
    try:
        await jetstream.stream_info(config.name)
    except NotFoundError:
        try:
            await jetstream.add_stream(config)
            log.info("stream created", stream=config.name)
        except BadRequestError as error:
            if error.err_code != _STREAM_EXISTS:
                raise


def discarding(config: StreamConfig) -> str | None:
    """Return why a stream would remove messages by itself, None when it refuses new ones instead.

    An existing stream is used as its operator made it. JetStream removes messages that are over a limit of a stream or of a subject
    unless it is told to refuse new ones, and always removes those that are too old (NATS documentation, "Streams", limits).
    """
    per_subject = (config.max_msgs_per_subject or 0) > 0 and not config.discard_new_per_subject
    if config.retention != RetentionPolicy.LIMITS:
        what, remedy = f"has retention {(config.retention or '').lower()}", "make it again with --retention limits"
    elif config.discard != DiscardPolicy.NEW:
        what, remedy = "discards old messages when it is full", f"nats stream edit {config.name} --discard new"
    elif (config.max_age or 0) > 0:
        what, remedy = f"removes messages after {config.max_age:g} s", f"nats stream edit {config.name} --max-age 0"
    elif per_subject:
        what, remedy = "discards old messages of a subject", f"nats stream edit {config.name} --discard-per-subject"
    else:
        return None
    return f"stream {config.name} {what}, stored in the database or not: {remedy}"
