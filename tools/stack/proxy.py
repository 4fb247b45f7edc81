"""A TCP proxy between two components, which can cut, delay or silence what goes through it.

It runs in a thread of its own, so that faults come whatever the measuring program does.
"""

import asyncio
import contextlib
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from tools.stack.tap import Session, Tap

_CHUNK_BYTES: Final = 65_536


class Mode(StrEnum):
    """What happens to a connection.

    OPEN: nothing. REFUSE: connections are closed, new ones at once. SILENT: connections stay open and nothing arrives any more, as
    when a cable is pulled (half-open). ONE_WAY: only what the client sends arrives. SLOW: everything arrives, late.
    """

    OPEN = "open"
    REFUSE = "refuse"
    SILENT = "silent"
    ONE_WAY = "one way"
    SLOW = "slow"


class Proxy:
    """Listens on a port of its own and connects to another one.

    Attributes:
        port: Where it listens.
    """

    def __init__(
        self, target_port: int, *, host: str = "127.0.0.1", delay_seconds: float = 0.2, tap: Tap | None = None
    ) -> None:
        """Prepare.

        Args:
            target_port: Where the connections go.
            host: Where both ports are.
            delay_seconds: How late everything arrives with `Mode.SLOW`.
            tap: Reads what passes.
        """
        self._host = host
        self._target_port = target_port
        self._delay_seconds = delay_seconds
        self._tap = tap
        self._mode = Mode.OPEN
        self._writers: set[asyncio.StreamWriter] = set()
        self._resources = contextlib.ExitStack()
        self._portal: BlockingPortal | None = None
        self.port = 0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as resources:
            self._portal = resources.enter_context(start_blocking_portal())
            server = self._portal.call(asyncio.start_server, self._serve, self._host, 0)
            self._resources = resources.pop_all()
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._portal is not None:
            self._portal.call(self._close_all)
        self._resources.close()

    def set(self, mode: Mode) -> None:
        """Change what happens; connections that were silenced do not come back to life, as after a pulled cable."""
        if self._portal is not None:
            self._portal.call(self._set, mode)

    async def _set(self, mode: Mode) -> None:
        before, self._mode = self._mode, mode
        if mode is Mode.REFUSE or before in {Mode.SILENT, Mode.ONE_WAY}:
            await self._close_all()

    async def _close_all(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.REFUSE:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._target_port)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, far_writer}
        self._writers |= pair
        try:
            with self._tap.session() if self._tap is not None else contextlib.nullcontext() as tapped:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._copy(reader, far_writer, tapped, from_client=True))
                    tasks.create_task(self._copy(far_reader, writer, tapped, from_client=False))
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tapped: Session | None, *, from_client: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                if tapped is not None and from_client:
                    tapped.from_client(data)
                mode = self._mode
                if mode is Mode.SILENT or (mode is Mode.ONE_WAY and not from_client):
                    continue
                if mode is Mode.SLOW:
                    await asyncio.sleep(self._delay_seconds)
                if tapped is not None and not from_client:
                    tapped.to_client(data)
                # What comes from one end is read to its end even when the other one is gone.
                if not writer.is_closing():
                    writer.write(data)
                    with contextlib.suppress(OSError):
                        await writer.drain()
        if self._mode in {Mode.OPEN, Mode.SLOW}:
            with contextlib.suppress(OSError):
                writer.write_eof()
