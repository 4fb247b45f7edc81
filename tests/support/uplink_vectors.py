"""The cases of ``tests/unit/payloads/vectors``: what a format has to answer, and bodies that are nearly right."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
import pytest
from hypothesis import strategies as st

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

type Case = dict[str, Any]
type Unwrap = Callable[[Received], Unwrapped]

FOLDER: Final = Path(__file__).parents[1] / "unit" / "payloads" / "vectors"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_KINDS: Final = {"event", "command", "simulated", "skipped"}

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["", "NaN", "-inf", "null", "0", "1e400", "2026-07-18T09:34:15Z", "AQ==", "\0"])
)
_documents = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def cases(name: str) -> list[Case]:
    """Return the cases of a file."""
    document = json.loads((FOLDER / f"{name}.json").read_text())
    return [{"received_at": document.get("received_at"), **case} for case in document["cases"]]


def parametrized(name: str) -> pytest.MarkDecorator:
    """Return the mark that runs a test with each case of a file, under its name."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in cases(name)])


def instant(text: str) -> int:
    """Return a time as microseconds since the epoch."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def received(case: Case) -> Received:
    """Return the message of a case."""
    return Received(
        case["body"].encode(),
        instant(case["received_at"]),
        case.get("topic", ""),
        dict(parse_qsl(case.get("query", ""), keep_blank_values=True, strict_parsing=bool(case.get("query")))),
    )


def check(unwrap: Unwrap, case: Case) -> None:
    """Look that the format answers what the case says."""
    if "error" in case:
        with pytest.raises(RejectedMessageError) as rejection:
            unwrap(received(case))
        assert rejection.value.reason == case["error"], rejection.value.detail
        return
    answer = unwrap(received(case))
    if "ignored" in case:
        assert answer == WithoutMeasurements(case["ignored"])
        return
    assert isinstance(answer, list)
    assert [_shown(uplink) for uplink in answer] == [_expected(uplink) for uplink in case["uplinks"]]


def check_law(unwrap: Unwrap, message: Received) -> None:
    """Look that a message gives uplinks, or none by its nature, or a rejection that a person can read: nothing else."""
    answer = _outcome(unwrap, message)
    if isinstance(answer, RejectedMessageError):
        assert answer.reason in set(Reason)
        assert 10 < len(answer.detail) < 700
    elif isinstance(answer, WithoutMeasurements):
        assert answer.kind in _KINDS
    else:
        assert answer
        for uplink in answer:
            assert uplink.fields is not None or uplink.frame is not None
            assert all(type(value) in {float, int, bool, str} for value in (uplink.fields or {}).values())
            assert all(abs(value) < 1e10 for value in uplink.radio.values())


def mutated(name: str) -> st.SearchStrategy[Received]:
    """Return messages of a file's cases in which bytes or members are replaced, left out or repeated."""
    originals = [received(case) for case in cases(name)]
    return st.sampled_from(originals).flatmap(_mutations)


def _outcome(unwrap: Unwrap, message: Received) -> Unwrapped | RejectedMessageError:
    try:
        return unwrap(message)
    except RejectedMessageError as rejection:
        return rejection


def _mutations(original: Received) -> st.SearchStrategy[Received]:
    bodies = _cut_or_spliced(original.body)
    try:
        document = json.loads(original.body)
    except ValueError:
        return bodies.map(lambda body: msgspec.structs.replace(original, body=body))
    paths = list(_paths(document))
    members = st.tuples(st.sampled_from(paths), _documents).map(
        lambda change: json.dumps(_replaced(document, *change)).encode()
    )
    return (bodies | members).map(lambda body: msgspec.structs.replace(original, body=body))


def _cut_or_spliced(body: bytes) -> st.SearchStrategy[bytes]:
    positions = st.integers(0, len(body))
    return st.tuples(positions, positions, st.binary(max_size=4)).map(
        lambda change: body[: change[0]] + change[2] + body[change[1] :]
    )


def _paths(document: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _paths(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from _paths(value, (*path, index))


def _replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = _replaced(copy[path[0]], path[1:], value)
    return copy


def _shown(uplink: Uplink) -> Case:
    return {
        "device": uplink.device,
        "time": uplink.measured_at,
        "bytes": None if uplink.frame is None else uplink.frame.hex(),
        "f_port": uplink.f_port,
        "fields": uplink.fields,
        "units": uplink.units,
        "radio": uplink.radio,
    }


def _expected(uplink: Case) -> Case:
    return {
        "device": uplink["device"],
        "time": instant(uplink["time"]),
        "bytes": uplink.get("bytes"),
        "f_port": uplink.get("f_port", 0),
        "fields": uplink.get("fields"),
        "units": uplink.get("units", {}),
        "radio": uplink["radio"],
    }
