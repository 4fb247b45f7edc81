"""What a codec finds, may return, and what becomes of it: every rule is a codec of its own."""

from typing import Any

import pytest

from sens_payloads.codecs import javascript
from sens_payloads.codecs.calls import Call, Decoded
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from support.codecs import RECEIVED_AT, call, detail, fields, javascript_vectors, reason

pytestmark = pytest.mark.asyncio(loop_scope="module")


class TestEveryRule:
    @pytest.mark.parametrize("case", javascript_vectors("rules"))
    async def test_holds_alone_and_among_others(self, sandbox: Sandbox, case: dict[str, Any]) -> None:
        calls = [Call(bytes.fromhex(case["bytes"]), case["f_port"], RECEIVED_AT)] * 3

        outcomes = await sandbox.decode("a", javascript.unsaved(case["code"]), calls)

        for outcome in outcomes:
            if "error" in case:
                assert reason(outcome) == case["error"]
            else:
                assert fields(outcome) == case["fields"]
                assert isinstance(outcome, Decoded)
                warned = case.get("warnings", [])
                assert len(outcome.warnings) == len(warned)
                assert all(map(str.startswith, outcome.warnings, warned))


async def decode(sandbox: Sandbox, body: str, given: Call | None = None) -> Any:
    source = f"function decodeUplink(input) {{ {body} }}"
    (outcome,) = await sandbox.decode("a", javascript.unsaved(source), [given or call()])
    return outcome


class TestErrorsSayWhere:
    async def test_an_exception_names_its_line(self, sandbox: Sandbox) -> None:
        outcome = await decode(sandbox, "\n var a = 1;\n return {data: {t: a + x}};")

        assert (reason(outcome), detail(outcome)) == ("codec_error", "line 3: ReferenceError: x is not defined")

    async def test_a_syntax_error_names_its_line(self, sandbox: Sandbox) -> None:
        outcome = await decode(sandbox, "\n\n return {data: {t: 1 +}};")

        assert detail(outcome).startswith("line 3: SyntaxError: ")

    async def test_a_source_that_ends_too_early_names_its_last_line(self, sandbox: Sandbox) -> None:
        (outcome,) = await sandbox.decode("a", javascript.unsaved("function decodeUplink(input) {\n\n"), [call()])

        assert detail(outcome).startswith("line 3: SyntaxError: ")

    async def test_an_error_within_what_surrounds_the_codec_names_the_codecs_line(self, sandbox: Sandbox) -> None:
        outcome = await decode(sandbox, "\n return {data: {t: Buffer.from(input.bytes).readInt32BE(0)}};")

        assert detail(outcome) == 'line 2: RangeError: The value of "offset" is out of range: 2 of 2 bytes'

    async def test_what_the_codec_says_is_one_short_line(self, sandbox: Sandbox) -> None:
        outcome = await decode(sandbox, r"return {errors: ['a\nb\u0000\u001b[31m\ud800', 'c'.repeat(1e6)]};")

        assert detail(outcome).startswith("a b  [31m?; ccc")
        assert len(detail(outcome)) <= 500


class TestTheSameBytesGiveTheSameValues:
    async def test_the_clock_stands_at_the_receipt(self, sandbox: Sandbox) -> None:
        outcome = await decode(
            sandbox,
            "var d = new Date(); return {data: {a: Date.now(), b: d.getTime(), c: new d.constructor() - 0, d: +input.recvTime,"
            " e: new Date(5).getTime(), f: new Date(2020, 1).toISOString(), g: typeof performance, h: Date() === String(d),"
            " i: d instanceof Date, j: Date.name, k: Date.UTC(2020, 0), l: new Date('2020-01-01') - 0}};",
        )

        receipt = RECEIVED_AT // 1000
        assert fields(outcome) == {
            "a": receipt,
            "b": receipt,
            "c": receipt,
            "d": receipt,
            "e": 5,
            "f": "2020-02-01T00:00:00.000Z",
            "g": "undefined",
            "h": True,
            "i": True,
            "j": "Date",
            "k": 1_577_836_800_000,
            "l": 1_577_836_800_000,
        }

    async def test_chance_begins_as_it_did(self, sandbox: Sandbox) -> None:
        source = "function decodeUplink(input) { return {data: {a: Math.random(), b: Math.random()}}; }"
        outcomes = await sandbox.decode("a", javascript.unsaved(source), [call()] * 3)

        assert outcomes[0] == outcomes[1] == outcomes[2]
        assert 0 < fields(outcomes[0])["a"] != fields(outcomes[0])["b"] < 1

    @pytest.mark.parametrize(
        "source",
        [
            "let n = 0; const f = () => ++n; function decodeUplink(input) { return {data: {n: f()}}; }",
            "var cache = {n: 0}; function decodeUplink(input) { cache.n++; return {data: cache}; }",
            "function decodeUplink(input) { n = typeof n === 'undefined' ? 1 : n + 1; return {data: {n: n}}; }",
            "function decodeUplink(input) { globalThis.m = (globalThis.m || 0) + 1; return {data: {n: m}}; }",
            "function f() { f.n = (f.n || 0) + 1; return f.n; } function decodeUplink(input) { return {data: {n: f()}}; }",
            "decodeUplink = function(input) { this.k = (this.k || 0) + 1; return {data: {n: this.k}}; }",
        ],
    )
    async def test_variables_begin_as_they_are_written(self, sandbox: Sandbox, source: str) -> None:
        outcomes = await sandbox.decode("a", javascript.unsaved(source), [call()] * 3)

        assert [fields(outcome) for outcome in outcomes] == [{"n": 1}] * 3


class TestBuffer:
    @pytest.mark.parametrize(
        ("expression", "value"),
        [
            ("b.readUInt8(0)", 0xF1),
            ("b.readInt8()", -15),
            ("b.readUInt16LE(0)", 0x02F1),
            ("b.readInt16BE(0)", -3838),
            ("b.readUint32BE(0)", 0xF1020304),
            ("b.readInt32LE(0)", 0x040302F1),
            ("b.readUIntBE(1, 3)", 0x020304),
            ("b.readIntLE(0, 3)", 0x0302F1),
            ("Buffer.from('3fc00000', 'hex').readFloatBE(0)", 1.5),
            ("Buffer.from('000000000000f83f', 'hex').readDoubleLE()", 1.5),
            ("Number(Buffer.from('ffffffffffffffff', 'hex').readBigInt64BE(0))", -1),
            ("b.toString('hex')", "f1020304"),
            ("b.toString('base64')", "8QIDBA=="),
            ("Buffer.from('8QIDBA==', 'base64').equals(b)", True),
            ("Buffer.from('äb').length", 3),
            ("Buffer.from('äb').toString()", "äb"),
            ("Buffer.from('hi', 'ascii').toString('ascii')", "hi"),
            ("Buffer.concat([b, b.slice(1, 2)]).length", 5),
            ("Buffer.alloc(2, 7)[1]", 7),
            ("Buffer.isBuffer(b) && !Buffer.isBuffer([])", True),
            ("b.slice(2).readUInt16BE(0)", 0x0304),
            ("b.subarray(2).readFloatLE === undefined", False),
        ],
    )
    async def test_reads_as_in_node(self, sandbox: Sandbox, expression: str, value: object) -> None:
        outcome = await decode(
            sandbox, f"var b = Buffer.from(input.bytes); return {{data: {{v: {expression}}}}};", call("f1020304")
        )

        assert fields(outcome) == {"v": value}


class TestValues:
    @pytest.mark.parametrize(
        ("data", "why"),
        [
            ("{a: 'x'.repeat(4097)}", "too_large"),
            ("{['x'.repeat(201)]: 1}", "invalid_metric"),
            ("{'': 1}", "invalid_metric"),
            ("{'a\\u0007': 1}", "invalid_metric"),
            ("{'a\\ud800': 1}", "invalid_metric"),
            ("Object.fromEntries(Array.from({length: 1001}, (_, i) => ['v' + i, i]))", "too_large"),
            ("{a: Array(1001).fill(1)}", "too_large"),
            ("{a: {get b() { throw new Error('x'); }}}", "codec_error"),
            ("{'a.b': 1, a: {b: 2}}", "codec_error"),
            ("[1].reduce((a) => { for (let i = 0; i < 20; i++) a = {a}; return a; }, {b: 1})", "too_large"),
            ("{a: null}", "codec_error"),
        ],
    )
    async def test_that_can_t_be_stored_have_the_reason_of_other_formats(
        self, sandbox: Sandbox, data: str, why: str
    ) -> None:
        assert reason(await decode(sandbox, f"return {{data: {data}}};")) == why

    async def test_of_wrappers_and_large_numbers_are_numbers(self, sandbox: Sandbox) -> None:
        outcome = await decode(
            sandbox,
            "return {data: {a: new Number(5), b: 2 ** 60, c: 1e300, d: new String('x'), e: new Boolean(false)}};",
        )

        assert fields(outcome) == {"a": 5, "b": float(2**60), "c": 1e300, "d": "x", "e": False}

    async def test_a_getter_that_changes_its_mind_ends_this_message_alone(self, sandbox: Sandbox) -> None:
        source = (
            "function decodeUplink(input) { if (input.bytes[0]) return {data: {a: 1}};"
            " var n = 0; return {data: {get a() { return n++ ? NaN : 1; }}}; }"
        )
        outcomes = await sandbox.decode("a", javascript.unsaved(source), [call("01"), call("00"), call("01")])

        assert [fields(outcomes[0]), reason(outcomes[1]), fields(outcomes[2])] == [{"a": 1}, "codec_limit", {"a": 1}]
