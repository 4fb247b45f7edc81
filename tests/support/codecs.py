"""Codecs for tests: a sandbox, and versions of sources."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from sens_payloads.codecs.calls import Call, Decoded, Outcome
from sens_payloads.codecs.sandbox.sandboxes import Sandbox

RECEIVED_AT: Final = 1_767_225_600_123_456
_VECTORS: Final = Path(__file__).parents[1] / "unit" / "payloads" / "vectors" / "javascript"

TEMPERATURE: Final = "function decodeUplink(input) { return {data: {t: (input.bytes[0] << 8 | input.bytes[1]) / 10}}; }"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    """Yield a sandbox for all tests of a file, which run in one event loop: `pytest.mark.asyncio(loop_scope="module")`."""
    async with Sandbox() as running:
        yield running


def javascript_vectors(name: str) -> list[Any]:
    """Return the cases of a file of vectors, as parameters with their names."""
    document = json.loads((_VECTORS / f"{name}.json").read_text(encoding="utf-8"))
    return [pytest.param(case, id=case["name"]) for case in document["cases"]]


def call(frame: str = "0110", f_port: int = 2) -> Call:
    """Return a call with bytes given in hexadecimal digits."""
    return Call(bytes.fromhex(frame), f_port, RECEIVED_AT)


def fields(outcome: Outcome) -> dict[str, Any]:
    """Return the fields of what was decoded."""
    assert isinstance(outcome, Decoded), outcome
    return dict(outcome.fields)


def reason(outcome: Outcome) -> str:
    """Return the reason of what was refused."""
    assert not isinstance(outcome, Decoded), outcome
    return outcome.reason


def detail(outcome: Outcome) -> str:
    """Return the sentence of what was refused."""
    assert not isinstance(outcome, Decoded), outcome
    return outcome.detail
