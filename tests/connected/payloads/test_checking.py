"""What is looked at before a codec is saved."""

import json
import re
from pathlib import Path

import pytest

from sens_payloads.codecs import javascript
from sens_payloads.codecs.javascript import Example, Problem
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from support.codecs import TEMPERATURE

pytestmark = pytest.mark.asyncio(loop_scope="module")
GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "write-a-codec.md"
UNKNOWN_PORT = (
    "function decodeUplink(input) { if (input.fPort !== 2) return {errors: ['unknown port']}; return {data: {n: 1}}; }"
)


class TestCheck:
    async def test_finds_nothing_wrong_with_a_codec_that_does_as_its_examples_say(self, sandbox: Sandbox) -> None:
        examples = [Example(b"\x01\x10", fields={"t": 27.2}), Example(b"\x00\x0a", fields={"t": 1})]

        assert await javascript.check(sandbox, "a", TEMPERATURE, examples) == []

    async def test_takes_a_codec_without_examples(self, sandbox: Sandbox) -> None:
        assert await javascript.check(sandbox, "a", TEMPERATURE, []) == []

    async def test_takes_errors_that_are_expected(self, sandbox: Sandbox) -> None:
        examples = [Example(b"", 2, fields={"n": 1}), Example(b"", 3, error="unknown port"), Example(b"", 4, error="")]

        assert await javascript.check(sandbox, "a", UNKNOWN_PORT, examples) == []

    @pytest.mark.parametrize(
        ("source", "text"),
        [
            ("function decodeUplink(input) {\n return {data: {a: 1 +}}; }", "line 2: SyntaxError: "),
            ("\nthrow new Error('at load');", "line 2: Error: at load"),
            (
                "var x = 1;",
                "it has none of the functions decodeUplink(input), Decoder(bytes, port), Decode(fPort, bytes, variables)",
            ),
            ("while (true) {}", "the codec took too long to load"),
            ("var a = []; while (true) a.push(new Uint8Array(1 << 20));", "the codec took more than 32 MB of memory"),
            ("// \ud800", "the source has half of a surrogate pair"),
            ("/" * 300_000, "the codec has more than 262144 bytes"),
        ],
    )
    async def test_says_why_a_codec_can_t_be_loaded(self, sandbox: Sandbox, source: str, text: str) -> None:
        (problem,) = await javascript.check(sandbox, source[:20], source, [Example(b"", fields={"a": 1})])

        assert problem.example is None
        assert problem.text.startswith(text)

    async def test_names_the_example_and_both_values(self, sandbox: Sandbox) -> None:
        examples = [Example(b"\x01\x10", fields={"t": 27.2}), Example(b"\x01\x11", fields={"t": 27.2})]

        assert await javascript.check(sandbox, "a", TEMPERATURE, examples) == [
            Problem(1, "it gave t: 27.3; expected was t: 27.2")
        ]

    async def test_tells_booleans_from_numbers_and_errors_from_values(self, sandbox: Sandbox) -> None:
        examples = [
            Example(b"", 2, fields={"n": True}),
            Example(b"", 2, error=""),
            Example(b"", 3, error="other words"),
        ]

        assert [problem.text for problem in await javascript.check(sandbox, "a", UNKNOWN_PORT, examples)] == [
            "it gave n: 1; expected was n: True",
            "it gave n: 1; expected was an error",
            "it gave the error 'unknown port'; expected was an error with the words 'other words'",
        ]

    @pytest.mark.parametrize(
        "keeping",
        [
            "Array.prototype.seen = (Array.prototype.seen || 0) + 1; var n = [].seen;",
            "JSON.n = (JSON.n || 0) + input.bytes[0]; var n = JSON.n;",
        ],
    )
    async def test_refuses_a_codec_that_keeps_something_between_messages(self, sandbox: Sandbox, keeping: str) -> None:
        source = f"function decodeUplink(input) {{ {keeping} return {{data: {{n: n}}}}; }}"
        problems = await javascript.check(sandbox, "a", source, [Example(b"\x01", fields={"n": 1})])

        assert [problem.example for problem in problems] == [0]
        assert "after other messages n: 2: a codec may keep nothing from one message to the next" in problems[0].text

    async def test_keeps_to_a_number_of_examples(self, sandbox: Sandbox) -> None:
        (problem,) = await javascript.check(sandbox, "a", TEMPERATURE, [Example(b"\x01\x10", fields={"t": 27.2})] * 101)

        assert problem == Problem(None, "there are 101 examples; at most 100 are kept")


class TestTheGuide:
    async def test_shows_a_codec_that_does_what_it_says(self, sandbox: Sandbox) -> None:
        blocks = re.findall(
            r'^```\w+ title="([^"]+)"\n(.*?)^```', GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
        files = dict(blocks)
        shown = [
            Example(bytes.fromhex(each["bytes"]), each["f_port"], fields=each.get("fields"), error=each.get("error"))
            for each in json.loads(files["examples.json"])
        ]
        examples = [
            *shown,
            Example(b"\xff\x38\xb4\x01", 2, fields={"temperature": -20.0, "battery.voltage": 3.6, "open": True}),
        ]

        assert len(shown) > 1
        assert await javascript.check(sandbox, "a", files["thermometer.js"], examples) == []

    async def test_quotes_the_engine(self, sandbox: Sandbox) -> None:
        source = "function decodeUplink(input) { var a; return {data: {t: a[0]}}; }"
        (problem,) = await javascript.check(sandbox, "a", source, [Example(b"", fields={"t": 1})])

        (quoted,) = re.findall(r"`(TypeError: .*?)`", GUIDE.read_text(encoding="utf-8"))
        assert quoted in problem.text.replace("\\", "")
