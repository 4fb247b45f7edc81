"""Runs kubectl, bounded in time and output. What it can't tell is told apart from what is wrong."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sens_cli.verify.outcome import CheckFailedError, NotRunError

TIMEOUT_SECONDS: Final = 15.0
MAXIMUM_BYTES: Final = 8 * 1024 * 1024

_AT_ONCE = 4
_END_SECONDS = 2.0
_REASON_CHARACTERS = 300
# What kubectl says when it has no cluster, no credentials or no right.
_NO_ACCESS = re.compile(
    r"no configuration has been provided|unable to connect to the server|the connection to the server"
    r"|must be logged in|unauthorized|forbidden|getting credentials|error loading config|invalid configuration"
    r'|context "[^"]*" does not exist|couldn\'t get current server api group list|/kubeconfig|no such host',
    re.IGNORECASE,
)
# What of it holds for every other question too.
_UNREACHABLE = re.compile(r"unable to connect to the server|the connection to the server|no such host", re.IGNORECASE)
_PROGRAM_ENDED = re.compile(r"command terminated with exit code ([0-9]+)")


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that has ended.

    Attributes:
        code: Exit code.
        output: Standard output.
        errors: Standard error.
    """

    code: int
    output: str
    errors: str

    @property
    def program_code(self) -> int | None:
        """Exit code of a program that ``kubectl exec`` ran, None when it did not get so far."""
        if self.code == 0:
            return 0
        ended = _PROGRAM_ENDED.search(self.errors)
        return None if ended is None else int(ended[1])

    @property
    def reason(self) -> str:
        """The last thing that was said on standard error, or the exit code."""
        lines = [line.strip() for line in self.errors.splitlines() if line.strip()]
        return lines[-1][:_REASON_CHARACTERS] if lines else f"kubectl ended with {self.code}"


class Kubectl:
    """The program on the PATH, with the configuration it finds by itself."""

    def __init__(self, context: str | None = None) -> None:
        self._options = [] if context is None else [f"--context={context}"]
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._lost: str | None = None

    async def run(self, *arguments: str, given: bytes = b"") -> Finished:
        """Run it and return how it ended, whatever its exit code.

        Args:
            arguments: Without the options of the connection.
            given: Its standard input.

        Raises:
            NotRunError: There is no kubectl, or it has no access to the cluster.
        """
        program = shutil.which("kubectl")
        if program is None:
            raise NotRunError("there is no kubectl on the PATH")
        async with self._places:
            if self._lost is not None:  # each of the others would wait as long for the same answer
                raise NotRunError(self._lost)
            try:
                finished = await _run([program, *self._options, *arguments], given)
            except NotRunError as error:
                if arguments[0] != "exec":  # where it may be the program in the pod that hangs
                    self._lost = str(error)
                raise
            if finished.code != 0 and finished.program_code is None and _NO_ACCESS.search(finished.errors):
                reason = f"kubectl has no access: {finished.reason}"
                if _UNREACHABLE.search(finished.errors):
                    self._lost = reason
                raise NotRunError(reason)
            return finished

    async def documents(self, *arguments: str, given: bytes = b"") -> list[dict[str, Any]]:
        """Run it and return the JSON objects that it prints, those of lists one by one.

        Raises:
            NotRunError: As `run`.
            CheckFailedError: It fails, or prints something else.
        """
        finished = await self.run(*arguments, given=given)
        if finished.code != 0:
            raise CheckFailedError(
                f"kubectl {arguments[0]}: {finished.reason}", "Run it by hand, and see what it says."
            )
        try:
            return _objects(finished.output)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise CheckFailedError(
                f"kubectl {arguments[0]} prints no JSON", "See that the kubectl on the PATH is Kubernetes' own."
            ) from None

    async def execute(self, pod_of: str, namespace: str, command: list[str]) -> Finished:
        """Run a program in a pod of a workload (``statefulset/name``); raises as `run`."""
        return await self.run("exec", f"--namespace={namespace}", "--pod-running-timeout=5s", pod_of, "--", *command)


async def _run(command: list[str], given: bytes) -> Finished:
    try:
        # A session of its own, so that its helpers (credential plug-ins) end with it.
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise NotRunError(f"kubectl can't be started: {error.strerror}") from None
    assert process.stdin is not None  # noqa: S101 - they are pipes
    assert process.stdout is not None  # noqa: S101 - same
    assert process.stderr is not None  # noqa: S101 - same

    def end() -> None:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            output, errors, code, _fed = await asyncio.gather(
                _read(process.stdout, end), _read(process.stderr, end), process.wait(), _feed(process.stdin, given)
            )
    except TimeoutError:
        raise NotRunError(f"kubectl gave no answer within {TIMEOUT_SECONDS:g} s") from None
    finally:
        if process.returncode is None:
            end()
            # Until its pipes are empty, asyncio does not tell that it has ended.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await asyncio.gather(process.stdout.read(), process.stderr.read(), process.wait())
    if output is None or errors is None:
        raise NotRunError(f"kubectl printed more than {MAXIMUM_BYTES} bytes")
    return Finished(code, output, errors)


async def _read(stream: asyncio.StreamReader, end: Callable[[], None]) -> str | None:
    """Return all that comes; None when it is too much, whereupon the program is ended and the rest thrown away."""
    content = bytearray()
    too_long = False
    while part := await stream.read(65_536):
        if too_long:
            continue
        content += part
        if len(content) > MAXIMUM_BYTES:
            too_long = True
            end()
    return None if too_long else content.decode(errors="replace")


async def _feed(stream: asyncio.StreamWriter, given: bytes) -> None:
    with contextlib.suppress(
        BrokenPipeError, ConnectionResetError
    ):  # it ended without reading: its exit code tells why
        stream.write(given)
        await stream.drain()
    stream.close()


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the objects of a text with JSON documents one after another, as ``kubectl create -o json`` prints them."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    rest = text.lstrip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found += document.get("items", [document])
        rest = rest[end:].lstrip()
    if not all(isinstance(each, dict) for each in found):
        raise TypeError
    return found
