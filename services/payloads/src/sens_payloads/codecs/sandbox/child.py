"""The child: an engine behind two pipes. It is started by `process`, and imports as little as it can."""

import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

import _quickjs  # the package `quickjs` around it starts a thread

from sens_payloads.codecs.sandbox import protocol
from sens_payloads.codecs.sandbox.child_limits import (
    CALL_SECONDS,
    CONTEXT_BYTES,
    KEPT_CODECS,
    LOAD_SECONDS,
    STACK_BYTES,
)
from sens_payloads.codecs.sandbox.lockdown import LockdownError, lock_down

_FLUSH_BYTES: Final = 65_536
_FLUSH_SECONDS: Final = 0.02
_LINES_BEFORE: Final = 300_000
"""Empty lines before the prelude: lines of a codec, which has fewer, are told from the prelude's by their numbers alone."""


class _Codec:
    """One version of a codec, with the context that it runs in."""

    def __init__(self, source: str, prelude: tuple[str, str]) -> None:
        self._source = source
        self._prelude = prelude
        self._context: _quickjs.Context | None = None
        self._step: Callable[[int], str] | None = None
        self._used = False
        self.form: int | str = -1

    def open(self) -> None:
        """Make a fresh context and load the codec into it.

        Raises:
            _quickjs.JSException: It can't be compiled.
        """
        self.close()
        context = _quickjs.Context()
        context.set_memory_limit(CONTEXT_BYTES)
        context.set_max_stack_size(STACK_BYTES)
        context.set_time_limit(LOAD_SECONDS)
        prelude, buffer = self._prelude
        context.eval(buffer)
        parts = context.eval(prelude)
        context.set("__parts", parts)
        functions = {name: context.eval(f"__parts.{name}") for name in ("load", "form", "begin", "step")}
        context.eval("delete globalThis.__parts")
        functions["load"](self._source)
        self.form = functions["form"]()
        context.set_time_limit(CALL_SECONDS)
        self._context, self._step, self._begin = context, functions["step"], functions["begin"]
        self._used = False

    def close(self) -> None:
        """Drop the context."""
        self._context = self._step = None

    def run(self, batch: str, count: int, answers: "_Answers") -> None:
        """Decode the calls of a batch, and answer each."""
        begun = False
        index = 0
        while index < count:
            if self._step is None:
                self.open()
                begun = False
            if not begun:
                self._begin(batch)
                begun = True
            assert self._step is not None  # noqa: S101 - opened above
            try:
                result = self._step(index)
                limit = "memory" if result.startswith('["l"') else ""
            except Exception as error:  # noqa: BLE001 - whatever the engine raises ends this call alone
                limit = "memory" if "out of memory" in str(error) else f"{error}"
            if not limit:
                self._used = True
                answers.add(result)
                index += 1
                continue
            used = self._used
            self.close()
            if used and limit == "memory":
                continue  # what others left behind may have filled it: try again in a fresh context
            answers.add_limit(limit)
            index += 1


class _Answers:
    """Collects results, and writes them when they are many or long under way."""

    def __init__(self, *, each: bool) -> None:
        self._each = each
        self._results: list[bytes] = []
        self._bytes = 0
        self._flushed = time.monotonic()

    def add(self, result: str) -> None:
        encoded = result.encode("utf-8", "surrogatepass")
        self._results.append(encoded)
        self._bytes += len(encoded)
        if self._each or self._bytes > _FLUSH_BYTES or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def add_limit(self, words: str) -> None:
        self.flush()
        _write(protocol.LIMIT, words.encode("utf-8", "replace")[:1000])

    def flush(self) -> None:
        if self._results:
            _write(protocol.RESULTS, b"[" + b",".join(self._results) + b"]")
            self._results.clear()
            self._bytes = 0
        self._flushed = time.monotonic()


def serve(prelude: tuple[str, str]) -> None:
    """Answer requests until the parent closes the pipe."""
    codecs: OrderedDict[bytes, _Codec] = OrderedDict()
    while True:
        request = _read()
        kind, body = request[:1], request[1:]
        if kind == protocol.LOAD:
            sha256 = body[: protocol.SHA256_BYTES]
            codec = _Codec(body[protocol.SHA256_BYTES :].decode(), prelude)
            try:
                codec.open()
            except _quickjs.JSException as error:
                _write(protocol.FAILED, str(error).encode("utf-8", "replace")[:4000])
                continue
            if isinstance(codec.form, str):
                _write(protocol.FAILED, codec.form.encode("utf-8", "replace"))
                continue
            codecs[sha256] = codec
            if len(codecs) > KEPT_CODECS:
                codecs.popitem(last=False)[1].close()
            _write(protocol.LOADED, str(int(codec.form)).encode())
        else:
            sha256, each, count = protocol.RUN_HEADER.unpack_from(body)
            found = codecs.get(sha256)
            if found is None:
                _write(protocol.MISSING, b"")
                continue
            codecs.move_to_end(sha256)
            answers = _Answers(each=each)
            found.run(body[protocol.RUN_HEADER.size :].decode(), count, answers)
            answers.flush()


def _read() -> bytes:
    (length,) = protocol.LENGTH.unpack(_read_exactly(protocol.LENGTH.size))
    return _read_exactly(length)


def _read_exactly(size: int) -> bytes:
    parts = []
    while size:
        part = os.read(0, size)
        if not part:
            os._exit(0)
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(kind: bytes, body: bytes) -> None:
    answer = memoryview(protocol.LENGTH.pack(len(body) + 1) + kind + body)
    while answer:
        answer = answer[os.write(1, answer) :]


def main(*, allow_without_seccomp: bool) -> None:
    """Lock this process down and serve."""
    os.environ["TZ"] = "UTC0"  # the engine asks the C library, which would look for a file
    time.tzset()
    folder = Path(__file__).parent
    prelude = folder.joinpath("prelude.js").read_text(encoding="utf-8")
    buffer = folder.joinpath("buffer.js").read_text(encoding="utf-8")
    lines = "\n" * _LINES_BEFORE
    "".encode("utf-8", "surrogatepass").decode(
        "utf-8", "replace"
    )  # error handlers are loaded before files are out of reach
    time.localtime()
    try:
        filtered = lock_down(allow_without_seccomp=allow_without_seccomp)
    except (LockdownError, OSError, ValueError) as error:
        _write(protocol.REFUSED, str(error).encode())
        sys.exit(1)
    _write(protocol.READY, b"1" if filtered else b"0")
    try:
        serve((lines + prelude, lines + buffer))
    except BrokenPipeError:
        os._exit(0)
    except BaseException:  # noqa: BLE001 - no traceback: it would look for files
        os._exit(1)
