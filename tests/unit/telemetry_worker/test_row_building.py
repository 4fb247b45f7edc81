"""A batch decoded column by column is what its messages are one by one."""

import asyncio
import json
from collections import Counter

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from sens_common.dead_letters import Reason
from sens_common.envelope import Message
from sens_telemetry_worker.batch import InterpretedMessages
from sens_telemetry_worker.decoders import native
from sens_telemetry_worker.decoders.columns import ColumnFormat
from sens_telemetry_worker.interpreting import Interpreter
from sens_telemetry_worker.tenants import Tenant
from support.memory import MemoryRegistry
from support.rows import values_of

NOW = 1_769_860_800_000_000  # 2026-01-31T12:00:00Z


class OneByOne:
    """The native format without its fast way."""

    decode = staticmethod(native.decode)

    @staticmethod
    def decode_if_flat(_payload: bytes, _received_at: int) -> None:
        """Leave everything to `decode`."""

    @staticmethod
    def layout_of(_payload: bytes) -> None:
        """Know no layouts."""


BY_COLUMN: ColumnFormat = native
ONE_BY_ONE: ColumnFormat = OneByOne()

values = st.one_of(
    st.integers(-(2**54), 2**54),
    st.sampled_from([2**53, -(2**53), 2**53 + 1, 2**64, 2**64 + 1, 10**400, 1e308]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.text(max_size=5),
    st.sampled_from(["a:b", "\0", "x" * 4097, ":", "é"]),
    st.sampled_from(
        [None, [], [1, True, "x"], [None], [1, [2]], {}, {"nested": 1}, {"nested": {"deeper": "x"}}, {"n": None}]
    ),
)
times = st.sampled_from(
    [
        1_769_860_799,
        1_769_860_799_123,
        1_769_860_799.5,
        "2026-01-31T11:59:59Z",
        "2026-01-31T11:59:59.25+00:00",
        5,
        "x",
        None,
        1_700_000_000,
        "2024-01-01T00:00:00Z",
    ]
)
names = st.sampled_from(
    ["a", "b", "c", "ts", "time", "timestamp", "a.0", "a:b", "a.b", "", "\x01", "\u00a0", "n" * 201, "é"]
)
bodies = st.one_of(
    st.fixed_dictionaries({"a": values, "b": values}, optional={"ts": times}),
    st.fixed_dictionaries({"a": values, "b": st.none()}, optional={"time": times, "timestamp": times, "ts": times}),
    st.dictionaries(names, values, max_size=4),
)
payloads = st.one_of(
    bodies.map(lambda body: json.dumps(body).encode()),
    bodies.map(lambda body: json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()),
    st.sampled_from(
        [
            b"",
            b"null",
            b"[]",
            b"{}",
            b'[{"a": 1}]',
            b'[{"a": 1, "ts": 1769860799}, {"a": 2, "ts": 1769860798}]',
            b'{"a": 1, "a": 2}',
            b'{"a": 1, "a": "x\\u003a"}',
            b'{"a": "x\\u003ay", "b": 1, "b": 2}',
            b'{"a": NaN}',
            b'{"a": 1e999}',
            b'{"ts": 1769860799}',
            b'{"a": 1, "ts": 1769860799, "ts": 1769860798}',
            b'{"a": 12345678901234567890123}',
            b'{"a": -0}',
            b'{"a": "\xff"}',
            b'{"\\u0061": 1, "a": 1}',
        ]
    ),
)
topics = st.sampled_from(["sens/v1/demo/d1/telemetry", "sens/v1/demo/d2/telemetry", "sens/v1/other/d1/telemetry", "x"])
repeated = st.tuples(topics, payloads, st.integers(1, 12))


def batch(groups: list[tuple[str, bytes, int]]) -> list[Message]:
    flat = [(topic, payload) for topic, payload, times in groups for _ in range(times)]
    return [Message(topic, payload, NOW + number) for number, (topic, payload) in enumerate(flat)]


async def interpret(
    messages: list[Message], payload_format: ColumnFormat, metric_limit: int = 1000
) -> InterpretedMessages:
    registry = MemoryRegistry({"demo": Tenant(1, "demo"), "other": Tenant(2, "other")}, metric_limit=metric_limit)
    interpreter = Interpreter(registry, payload_format)
    await interpreter.interpret(messages)  # the layouts that it learns from this decode the same messages again
    return await interpreter.interpret(messages)


def comparable(interpreted: InterpretedMessages) -> tuple[object, ...]:
    """Rows with names in the place of ids, since metrics may be registered in another order."""
    tenants = {device.tenant.id: device.tenant for device in interpreted.devices if device is not None}
    metrics = {
        (tenant.id, metric_id): (kind, name)
        for tenant in tenants.values()
        for kind, ids in tenant.metric_ids.items()
        for name, metric_id in ids.items()
    }

    def metric(message_index: int, metric_id: int) -> tuple[str, str]:
        device = interpreted.devices[message_index]
        assert device is not None
        return metrics[device.tenant.id, metric_id]

    values = Counter(
        (
            each.message_index,
            each.device_id,
            metric(each.message_index, each.metric_id),
            each.measured_at,
            repr(each.value),
        )
        for each in values_of(interpreted.rows)
    )
    return values, sorted(interpreted.rejections)


class TestColumns:
    @settings(max_examples=400, deadline=None)
    @given(st.lists(repeated, max_size=12))
    def test_hold_what_the_messages_hold(self, groups: list[tuple[str, bytes, int]]) -> None:
        messages = batch(groups)

        assert comparable(asyncio.run(interpret(messages, BY_COLUMN))) == comparable(
            asyncio.run(interpret(messages, ONE_BY_ONE))
        )

    @settings(max_examples=200, deadline=None)
    @given(st.lists(repeated, max_size=12), st.integers(0, 3))
    def test_register_and_refuse_the_same_metrics_at_a_limit(
        self, groups: list[tuple[str, bytes, int]], metric_limit: int
    ) -> None:
        messages = batch(groups)

        assert comparable(asyncio.run(interpret(messages, BY_COLUMN, metric_limit))) == comparable(
            asyncio.run(interpret(messages, ONE_BY_ONE, metric_limit))
        )

    async def test_refuse_what_lies_further_back_than_the_tenant_allows(self) -> None:
        day = 86_400_000_000
        tenant = Tenant(1, "demo", late_microseconds=2 * day)
        times = [NOW - 2 * day, NOW - 2 * day - 1, NOW - day]
        messages = [
            Message("sens/v1/demo/d1/telemetry", orjson.dumps({"ts": at, "a": 1, "b": {"c": nested}}), NOW)
            for at in times
            for nested in range(10)
        ]
        messages += [Message("sens/v1/demo/d1/telemetry", orjson.dumps({"ts": at, "a": 1}), NOW) for at in times * 10]

        interpreted = await Interpreter(MemoryRegistry({"demo": tenant}), BY_COLUMN).interpret(messages)

        assert {
            (rejection.reason, json.loads(messages[rejection.message_index].payload)["ts"])
            for rejection in interpreted.rejections
        } == {(Reason.TOO_OLD, times[1])}
        assert len(interpreted.rejections) == 20
        assert "is more than 2 days before the receipt" in interpreted.rejections[0].detail

    async def test_leave_one_unusual_value_of_many_to_the_full_decoder(self) -> None:
        bodies = [{"a": number, "t": "x"} for number in range(20)]
        bodies[7]["a"] = 2**53 + 1
        bodies[9]["t"] = "\0"
        messages = [Message("sens/v1/demo/d1/telemetry", orjson.dumps(body), NOW + n) for n, body in enumerate(bodies)]

        interpreted = await interpret(messages, BY_COLUMN)

        assert [(rejection.message_index, rejection.reason) for rejection in sorted(interpreted.rejections)] == [
            (7, Reason.UNSUPPORTED_VALUE),
            (9, Reason.UNSUPPORTED_VALUE),
        ]
        (group,) = interpreted.rows.groups
        assert (group.size, group.numbers.shape, group.texts.shape) == (18, (18, 1), (18, 1))

    async def test_leave_long_payloads_to_the_full_decoder_and_remember_none_of_their_names(self) -> None:
        native._are_names.cache_clear()
        messages = batch([("sens/v1/demo/d1/telemetry", orjson.dumps({"n" * 100_000: 1}), 20)])
        texts = orjson.dumps({"a": "x" * 4096, "b": "x" * 4096, "c": 1})
        messages += batch([("sens/v1/demo/d1/telemetry", texts, 20)])

        interpreted = await interpret(messages, BY_COLUMN)

        assert native._are_names.cache_info().currsize == 0
        assert comparable(interpreted) == comparable(await interpret(messages, ONE_BY_ONE))
        assert len(interpreted.rejections) == sum(group.size for group in interpreted.rows.groups) == 20

    async def test_reject_every_message_of_a_shape_with_a_metric_beyond_the_limit(self) -> None:
        messages = batch(
            [("sens/v1/demo/d1/telemetry", b'{"a": 1}', 10), ("sens/v1/demo/d1/telemetry", b'{"b": 1}', 10)]
        )

        interpreted = await interpret(messages, BY_COLUMN, metric_limit=1)

        assert {rejection.reason for rejection in interpreted.rejections} == {Reason.LIMIT_REACHED}
        assert [rejection.message_index for rejection in sorted(interpreted.rejections)] == list(range(10, 20))
