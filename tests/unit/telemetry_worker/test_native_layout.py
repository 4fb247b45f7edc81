"""Payloads of one layout, decoded together, are what they are one by one."""

import json
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sens_common.formats import Measurement, MetricKind
from sens_telemetry_worker.decoders import native
from sens_telemetry_worker.decoders.columns import Columns
from sens_telemetry_worker.decoders.native_layout import NativeLayout, layout

NOW = 1_769_860_800_000_000  # 2026-01-31T12:00:00Z

numbers = st.one_of(
    st.integers(-(2**54), 2**54),
    st.sampled_from([2**53, -(2**53), 2**53 + 1, 2**64 + 1, 10**400, 1e308, -0.0, 0, 5e-324]),
    st.floats(allow_nan=False, allow_infinity=False),
)
texts = st.one_of(st.text(max_size=5), st.sampled_from(["a:b", "\0", "x" * 4097, ":", "é", "\\", "\u2028", "\x7f"]))
strange = st.sampled_from([None, [], {}, [1], {"n": 1}, "1", 1, True, 1.5])
epochs = st.sampled_from(
    [
        NOW // 1_000_000,
        NOW // 1000 + 7,
        NOW + 3,
        NOW * 1000 + 999,
        -1,
        5,
        2**63 - 1,
        -(2**63),
        2**70,
        NOW // 1_000_000 + 86_400,
        NOW // 1_000_000 + 86_401,
        1769860799.5,
        "x",
        None,
    ]
)
moments = st.sampled_from(["2026-01-31T11:59:59Z", "2026-01-31T11:59:59.25+00:00", "x", "1:2:3", 1, None])


def payloads_of(
    names: list[str], kinds: list[MetricKind], times: st.SearchStrategy[object] | None
) -> st.SearchStrategy[bytes]:
    values = {"number": numbers, "boolean": st.booleans(), "text": texts}
    members: dict[str, st.SearchStrategy[object]] = {
        name: st.one_of(values[kind], values[kind], values[kind], strange)
        for name, kind in zip(names, kinds, strict=True)
    }
    if times is not None:
        members["ts"] = times
    whole = st.fixed_dictionaries(members)
    more = st.fixed_dictionaries(members, optional={"more": numbers, "time": epochs})
    return st.builds(
        lambda body, separators, ascii_only: json.dumps(body, separators=separators, ensure_ascii=ascii_only).encode(),
        st.one_of(whole, whole, more),
        st.sampled_from([(",", ":"), (", ", ": ")]),
        st.booleans(),
    )


RAW = st.sampled_from(
    [
        b"",
        b"[]",
        b'{"a": 1, "b": true, "c": "x", "c": "y"}',
        b'{"a": 1, "b": true, "c": "x\\u003ay", "b": true}',
        b'{"\\u0061": 1, "b": true, "c": "x"}',
        b'{"a": -0, "b": true, "c": "x"}',
        b'{"a": 1, "b": true, "c": "\xff"}',
        b'{"a": 1, "b": true, "c": "' + b"x" * 4096 + b'"' + b" " * 9000 + b"}",
    ]
)


def assert_equal(columns: Columns, of: NativeLayout, payloads: list[bytes], received_at: list[int]) -> None:
    for row, index in enumerate(columns.indexes.tolist()):
        numeric = iter(columns.numbers[row].tolist())
        text = iter(column[row] for column in columns.texts)
        found = [
            Measurement(
                name,
                int(columns.times[row]),
                next(text) if kind == "text" else bool(next(numeric)) if kind == "boolean" else next(numeric),
            )
            for name, kind in of.metrics
        ]
        expected = native.decode(payloads[index], received_at[index])
        assert sorted(map(repr, found)) == sorted(map(repr, expected))


class TestLayout:
    @settings(max_examples=300, deadline=None)
    @given(st.data(), st.sampled_from(["epoch", "text", "receipt"]), st.sampled_from(["c", "c:d"]))
    def test_decodes_what_the_full_decoder_does(
        self, data: st.DataObject, time_kind: Literal["epoch", "text", "receipt"], third: str
    ) -> None:
        times = {"epoch": epochs, "text": moments, "receipt": None}[time_kind]
        of = layout((("a", "number"), ("b", "boolean"), (third, "text")), time_kind)
        payload = st.one_of(payloads_of(["a", "b", third], ["number", "boolean", "text"], times), RAW)
        payloads = data.draw(st.lists(payload, max_size=12))
        received_at = [NOW + number for number in range(len(payloads))]

        columns = of.decode(payloads, np.array(received_at, np.int64))

        assert_equal(columns, of, payloads, received_at)

    @pytest.mark.parametrize(
        ("time_kind", "ts"),
        [("epoch", 1769860799123), ("epoch", 1769860799), ("text", "2026-01-31T11:59:59.25Z"), ("receipt", None)],
    )
    @pytest.mark.parametrize("names", [(), ("a",), ("a", "b:c")])
    @pytest.mark.parametrize("text", [None, "running: fast", "é"])
    def test_decodes_all_of_an_ordinary_batch(
        self, time_kind: Literal["epoch", "text", "receipt"], ts: object, names: tuple[str, ...], text: str | None
    ) -> None:
        bodies: list[dict[str, object]] = [
            dict.fromkeys(names, number * 0.5)
            | ({} if text is None else {"state": text})
            | ({} if ts is None else {"ts": ts})
            for number in range(1, 20)
        ]
        payloads = [json.dumps(body, ensure_ascii=False).encode() for body in bodies]
        metrics: list[tuple[str, MetricKind]] = [(name, "number") for name in names]
        if text is not None:
            metrics.append(("state", "text"))
        of = layout(tuple(metrics), time_kind)
        received_at = [NOW + number for number in range(len(payloads))]
        if not of.metrics:
            return

        columns = of.decode(payloads, np.array(received_at, np.int64))

        assert columns.indexes.tolist() == list(range(len(payloads)))
        assert_equal(columns, of, payloads, received_at)

    def test_leaves_one_that_does_not_fit_and_decodes_the_others(self) -> None:
        payloads = [json.dumps({"a": number, "t": "x"}).encode() for number in range(1, 21)]
        payloads[3] = b'{"a": null, "t": "x"}'
        payloads[7] = json.dumps({"a": 2**53 + 1, "t": "x"}).encode()
        payloads[9] = b'{"a": 1, "t": "\\u0000"}'
        of = layout((("a", "number"), ("t", "text")), "receipt")

        columns = of.decode(payloads, np.arange(NOW, NOW + 20))

        assert columns.indexes.tolist() == [index for index in range(20) if index not in {3, 7, 9}]
        assert columns.numbers[:, 0].tolist() == [index + 1.0 for index in columns.indexes.tolist()]
        assert columns.times.tolist() == [NOW + index for index in columns.indexes.tolist()]
