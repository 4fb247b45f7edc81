"""One child process: started, spoken to, watched, ended."""

import asyncio
import contextlib
import importlib.util
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final, Self, cast, override

from sens_common.errors import UnavailableError, words_of
from sens_payloads.codecs.sandbox import protocol

_START: Final = (
    "import sys; sys.path += sys.argv[2:]; from sens_payloads.codecs.sandbox.child import main;"
    " main(allow_without_seccomp=sys.argv[1] == '1')"
)
"""Without `site` nothing of an environment runs in a child: it gets two folders, that of this package and that of the engine."""
_START_SECONDS: Final = 20.0
_HANGING_RATIO: Final = 2.0
"""A child hangs when it computes so many times longer without a word than the engine itself allows."""
_SILENT_SECONDS: Final = 10.0
_WATCH_SECONDS: Final = 0.05


class ChildEndedError(Exception):
    """The child is gone, or was ended because it hung or wrote nonsense; the text says how.

    Attributes:
        is_from_outside: Whether the codec need not be the reason: the child was killed (SIGKILL) by the system or by a person, or it got no turn.
    """

    def __init__(self, text: str, *, is_from_outside: bool = False) -> None:
        super().__init__(text)
        self.is_from_outside = is_from_outside


class NotStartedError(UnavailableError):
    """A child did not start this time; the next one may.

    Attributes:
        is_from_outside: Whether it was killed (SIGKILL) by the system or by a person.
    """

    def __init__(self, text: str, *, is_from_outside: bool = False) -> None:
        super().__init__(text)
        self.is_from_outside = is_from_outside


class Child(asyncio.SubprocessProtocol):
    """A process that has a sandbox's rights, and answers requests. One conversation at a time."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._transport: asyncio.SubprocessTransport | None = None
        self._received = bytearray()
        self._answers: deque[tuple[bytes, bytes]] = deque()
        self._waiting_bytes = 0
        self._paused = False
        self._had_no_turn = False
        self._waiter: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = loop.create_future()
        self._watch: asyncio.TimerHandle
        self._why_killed = ""
        self._cpu_seconds = 0.0
        self._allowed_seconds = 0.0
        self._silent_since = 0.0
        self._silent_since_cpu: float | None = 0.0
        self.filtered = False

    @classmethod
    async def start(cls, *, allow_without_seccomp: bool) -> Self:
        """Start a child and wait until it has given its rights away.

        Raises:
            UnavailableError: It can't be started, or this system can't take its rights away.
        """
        engine = importlib.util.find_spec("_quickjs")
        if engine is None or engine.origin is None or not sys.executable:
            raise UnavailableError(
                "JavaScript codecs need the package quickjs-ng and a Python interpreter that can be started"
            )
        arguments = ("-I", "-S", "-B", "-c", _START, "1" if allow_without_seccomp else "0")
        folders = (str(Path(__file__).parents[3]), str(Path(engine.origin).parent))
        try:
            _, child = await asyncio.get_running_loop().subprocess_exec(
                cls,
                sys.executable,
                *arguments,
                *folders,
                stderr=subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise NotStartedError(f"the process for JavaScript codecs can't be started: {error}") from error
        try:
            async with asyncio.timeout(_START_SECONDS):
                kind, body = await child._next()  # noqa: SLF001 - of the same class
        except (TimeoutError, ChildEndedError) as error:
            await child.end()
            raise NotStartedError(
                f"the process for JavaScript codecs does not start: {words_of(error)}",
                is_from_outside=isinstance(error, ChildEndedError) and error.is_from_outside,
            ) from None
        except BaseException:
            await child.end()
            raise
        if kind != protocol.READY:
            await child.end()
            raise UnavailableError(
                f"JavaScript codecs can't be run safely here: {body.decode('utf-8', 'replace')[:500]}. They run on Linux with seccomp;"
                " allow_without_seccomp runs them without it, where all codecs are your own"
            )
        child.filtered = body == b"1"
        return child

    def send(self, kind: bytes, body: bytes) -> None:
        """Send a request; if the child is gone, `receive` says so."""
        stream = cast(asyncio.WriteTransport, self._process.get_pipe_transport(0))
        if not stream.is_closing():  # as it is once the child has ended, some time before `connection_lost`
            stream.write(protocol.LENGTH.pack(len(body) + 1) + kind + body)

    async def receive(self, cpu_seconds: float) -> tuple[bytes, bytes]:
        """Return kind and body of the next answer.

        Args:
            cpu_seconds: For how long the child may compute until then.

        Raises:
            ChildEndedError: The child is gone, or hung.
        """
        if self._answers:
            return self._take()
        self._allowed_seconds = _HANGING_RATIO * cpu_seconds
        self._silent_since, self._silent_since_cpu = self._loop.time(), self.cpu_seconds
        self._watch = self._loop.call_later(_WATCH_SECONDS, self._look)
        try:
            return await self._next()
        finally:
            self._watch.cancel()

    def kill(self) -> None:
        """Kill the child if it still lives."""
        if not self._closed.done():
            self._process.close()

    async def end(self) -> None:
        """Kill the child if it still lives, and wait for its end."""
        self.kill()
        await self._closed

    @property
    def alive(self) -> bool:
        """Whether it can be spoken to."""
        return not self._closed.done()

    @property
    def cpu_seconds(self) -> float | None:
        """CPU time that the child has used, None where the system does not say."""
        if sys.platform != "linux":
            return None
        with contextlib.suppress(OSError):  # it has ended: what it had used when it was looked at last
            # The clock of another process: clock_getcpuclockid(3), include/linux/posix-timers.h.
            self._cpu_seconds = time.clock_gettime(~self.process_id << 3 | 2)
        return self._cpu_seconds

    @property
    def process_id(self) -> int:
        """Number of the process."""
        return self._process.get_pid()

    async def _next(self) -> tuple[bytes, bytes]:
        while not self._answers:
            if self._closed.done():
                raise self._ended()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._take()

    def _ended(self) -> ChildEndedError:
        status = self._process.get_returncode()
        if self._why_killed:
            return ChildEndedError(self._why_killed, is_from_outside=self._had_no_turn)
        return ChildEndedError(words_of_status(status), is_from_outside=status == -signal.SIGKILL)

    def _take(self) -> tuple[bytes, bytes]:
        kind, body = self._answers.popleft()
        self._waiting_bytes -= len(body)
        if self._paused and self._waiting_bytes <= protocol.MAX_ANSWER_BYTES:
            self._paused = False
            self._output.resume_reading()
        return kind, body

    @property
    def _output(self) -> asyncio.ReadTransport:
        return cast("asyncio.ReadTransport", self._process.get_pipe_transport(1))

    @property
    def _process(self) -> asyncio.SubprocessTransport:
        assert self._transport is not None  # noqa: S101 - connected since it was started
        return self._transport

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)  # uvloop's is of another class

    @override
    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)  # noqa: S101 - asyncio's promise
        received = self._received
        received += data
        while len(received) >= protocol.LENGTH.size:
            (length,) = protocol.LENGTH.unpack_from(received)
            if not 1 <= length <= protocol.MAX_ANSWER_BYTES:
                self._kill("it wrote something that is not an answer")
                return
            end = protocol.LENGTH.size + length
            if len(received) < end:
                return
            body = protocol.LENGTH.size + 1
            self._answers.append((bytes(received[body - 1 : body]), bytes(received[body:end])))
            self._waiting_bytes += end - body
            del received[:end]
            self._wake()
        if self._waiting_bytes > protocol.MAX_ANSWER_BYTES and not self._paused and self.alive:
            self._paused = True  # the child waits until what it has written was looked at
            self._output.pause_reading()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._process.close()
        if not self._closed.done():
            self._closed.set_result(None)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _look(self) -> None:
        """End the child if it has computed for too long without a word. Waiting for its turn on a busy machine is no fault of it."""
        silent = self._loop.time() - self._silent_since
        used, before = self.cpu_seconds, self._silent_since_cpu
        hangs = silent if used is None or before is None else used - before
        if hangs > self._allowed_seconds or silent > _SILENT_SECONDS:
            self._had_no_turn = hangs <= self._allowed_seconds
            self._kill("it did not come to an end")
        else:
            self._watch = self._loop.call_later(_WATCH_SECONDS, self._look)

    def _kill(self, why: str) -> None:
        self._why_killed = self._why_killed or why
        self._received.clear()
        self._process.close()


def words_of_status(status: int | None) -> str:
    """Return how a process ended, from its exit status; negative ones are signals.

    >>> words_of_status(-11), words_of_status(1)
    ('it was ended by SIGSEGV', 'it ended with status 1')
    """
    if status is None or status >= 0:
        return "it ended" if status is None else f"it ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if name == "SIGSYS":
        return "it was ended by SIGSYS, because it called for something that a codec may not have"
    return f"it was ended by {name}"
