"""Runs kubectl, bounded in time and output."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MAXIMUM_BYTES: Final = 8 * 1024 * 1024

_END_SECONDS = 2.0
_REASON_CHARACTERS = 300
_PROGRAM_ENDED = re.compile(r"command terminated with exit code ([0-9]+)")


class UnansweredError(Exception):
    """kubectl gave no answer; the text says why."""


class KubectlMissingError(UnansweredError):
    """There is no kubectl."""


class KubectlSilentError(UnansweredError):
    """It took too long."""


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


async def run_kubectl(
    *arguments: str, context: str | None, timeout_seconds: float, standard_input: bytes = b""
) -> Finished:
    """Run the program on the PATH, with the configuration it finds by itself; return how it ended, whatever its exit code.

    Args:
        arguments: Without the options of the connection. Every user of this machine can see them: never a secret.
        context: The context to use; the current one when None.
        timeout_seconds: How long it may take.
        standard_input: What it reads.

    Raises:
        KubectlMissingError: There is none.
        KubectlSilentError: It did not end in time.
        UnansweredError: It can't be started, or prints too much.
    """
    program = shutil.which("kubectl")
    if program is None:
        raise KubectlMissingError("there is no kubectl on the PATH")
    try:
        # A session of its own, so that its helpers (credential plug-ins) end with it.
        process = await asyncio.create_subprocess_exec(
            program,
            *([] if context is None else [f"--context={context}"]),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise UnansweredError(f"kubectl can't be started: {error.strerror}") from None
    assert process.stdin is not None  # noqa: S101 - they are pipes
    assert process.stdout is not None  # noqa: S101 - same
    assert process.stderr is not None  # noqa: S101 - same

    def end() -> None:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    try:
        async with asyncio.timeout(timeout_seconds):
            output, errors, code, _fed = await asyncio.gather(
                _read(process.stdout, end),
                _read(process.stderr, end),
                process.wait(),
                _feed(process.stdin, standard_input),
            )
    except TimeoutError:
        raise KubectlSilentError(f"kubectl gave no answer within {timeout_seconds:g} s") from None
    finally:
        if process.returncode is None:
            end()
            # Until its pipes are empty, asyncio does not tell that it has ended.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_SECONDS):
                    await asyncio.gather(process.stdout.read(), process.stderr.read(), process.wait())
    if output is None or errors is None:
        raise UnansweredError(f"kubectl printed more than {MAXIMUM_BYTES} bytes")
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


async def _feed(stream: asyncio.StreamWriter, content: bytes) -> None:
    # Where it ended without reading, its exit code tells why.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(content)
        await stream.drain()
    stream.close()
