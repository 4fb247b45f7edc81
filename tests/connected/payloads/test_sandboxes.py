"""The sandbox with real children: order, faults of one message, fairness, and what a child has."""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import uvloop

from sens_common.errors import RejectedMessageError, UnavailableError
from sens_payloads.codecs import javascript
from sens_payloads.codecs.calls import MAX_FRAME_BYTES, MAX_SOURCE_BYTES, Call, Decoded, Outcome
from sens_payloads.codecs.javascript import JavascriptCodecs
from sens_payloads.codecs.sandbox import conversation, process, sandboxes
from sens_payloads.codecs.sandbox.budget import CAPACITY_SECONDS
from sens_payloads.codecs.sandbox.process import Child
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from sens_payloads.frame_decoding import Codecs
from sens_payloads.frames import Frame
from support.codecs import TEMPERATURE, call, detail, fields, reason

GOOD = javascript.unsaved(TEMPERATURE)
ENDLESS = javascript.unsaved("function decodeUplink(input) { while (true) {} }")
ENDLESS_FOR_ZERO = javascript.unsaved(
    "function decodeUplink(input) { while (!input.bytes[0]) {} return {data: {n: input.bytes[0]}}; }"
)
THROWS_FOR_NONE = javascript.unsaved(
    "function decodeUplink(input) { if (!input.bytes.length) throw new TypeError('empty'); return {data: {n: input.bytes[0]}}; }"
)
FIRST_BYTE = javascript.unsaved("function decodeUplink(input) { return {data: {n: input.bytes[0]}}; }")


def child_of(sandbox: Sandbox, tenant: str = "a") -> Child:
    child = sandbox._tenants[tenant].child
    assert child is not None
    return child


class TestCalls:
    async def test_are_answered_in_their_order_however_many_they_are(self) -> None:
        calls = [Call(i.to_bytes(2), 1, i) for i in range(3000)]
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", GOOD, calls)

        assert [fields(outcome)["t"] for outcome in outcomes] == [i / 10 for i in range(3000)]

    async def test_of_several_codecs_find_each_its_own(self) -> None:
        codecs = [javascript.unsaved(f"function decodeUplink() {{ return {{data: {{n: {n}}}}}; }}") for n in range(9)]
        async with Sandbox() as sandbox:
            for _ in range(2):
                for n, codec in enumerate(codecs):
                    assert fields((await sandbox.decode("a", codec, [call()]))[0]) == {"n": n}

    async def test_carry_port_time_and_variables(self) -> None:
        codec = javascript.unsaved(
            "function decodeUplink(i) { return {data: {p: i.fPort, t: i.recvTime.toISOString(), o: i.variables.offset, n: Object.keys(i.variables).length}}; }"
        )
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode(
                "a", codec, [Call(b"", 7, 1_767_225_600_123_456, {"offset": "é\0"[:1]}), Call(b"")]
            )

        assert fields(outcomes[0]) == {"p": 7, "t": "2026-01-01T00:00:00.123Z", "o": "é", "n": 1}
        assert fields(outcomes[1]) == {"p": 0, "t": "1970-01-01T00:00:00.000Z", "n": 0}

    async def test_that_are_too_large_are_not_sent(self) -> None:
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", GOOD, [call(), Call(bytes(MAX_FRAME_BYTES + 1)), call()])
            large = await sandbox.decode("a", javascript.unsaved("/" * (MAX_SOURCE_BYTES + 1)), [call()])

        assert [fields(outcomes[0]), reason(outcomes[1]), fields(outcomes[2])] == [
            {"t": 27.2},
            "too_large",
            {"t": 27.2},
        ]
        assert reason(large[0]) == "codec_error"

    async def test_of_the_largest_size_fit(self) -> None:
        codec = javascript.unsaved("function decodeUplink(input) { return {data: {n: input.bytes.length}}; }")
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", codec, [Call(b"\xff" * MAX_FRAME_BYTES)] * 20)

        assert [fields(outcome) for outcome in outcomes] == [{"n": MAX_FRAME_BYTES}] * 20

    async def test_with_large_results_fit(self) -> None:
        codec = javascript.unsaved(
            "function decodeUplink() { var d = {}; for (var i = 0; i < 60; i++) d['v' + i] = 'é'.repeat(4000); return {data: d}; }"
        )
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", codec, [call()] * 20)

        assert {len(fields(outcome)) for outcome in outcomes} == {60}

    async def test_with_large_results_are_bounded_together(self) -> None:
        codec = javascript.unsaved(
            "function decodeUplink() { var d = {}; for (var i = 0; i < 60; i++) d['v' + i] = 'x'.repeat(4000); return {data: d}; }"
        )
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", codec, [call()] * 500)

        decoded = [outcome for outcome in outcomes if isinstance(outcome, Decoded)]
        assert 100 < len(decoded) < 200
        assert {reason(outcome) for outcome in outcomes[len(decoded) :]} == {"codec_limit"}
        assert "returned more than 32 MB" in detail(outcomes[-1])


class TestFrames:
    async def test_are_decoded_with_the_codec_of_their_profile(self) -> None:
        frames = [Frame(b"\x01\x10", 2, 0), Frame(b"", 2, 0)]
        async with Sandbox() as sandbox:
            decoded = await Codecs(JavascriptCodecs(sandbox)).decode(1, THROWS_FOR_NONE, frames)

        assert decoded[0] == {"n": 1}
        assert isinstance(decoded[1], RejectedMessageError)
        assert decoded[1].detail == "line 1: TypeError: empty"


class TestACallThatNeverEnds:
    async def test_costs_its_message_alone(self) -> None:
        calls = [Call(bytes([n])) for n in (1, 2, 0, 3, 0, 4)]
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", ENDLESS_FOR_ZERO, calls)

        assert [fields(outcomes[i])["n"] for i in (0, 1, 3, 5)] == [1, 2, 3, 4]
        assert reason(outcomes[2]) == reason(outcomes[4]) == "codec_limit"
        assert detail(outcomes[2]) == "the codec took more than 100 ms for this message"

    async def test_that_comes_again_and_again_is_not_run_for_a_while(self) -> None:
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", ENDLESS, [call()] * 500)
            again = await sandbox.decode("a", ENDLESS, [call()] * 500)
            other_codec = await sandbox.decode("a", GOOD, [call()])
            other_tenant = await sandbox.decode("b", ENDLESS_FOR_ZERO, [call()])

        run = [outcome for outcome in outcomes if "100 ms" in detail(outcome)]
        assert 1 <= len(run) <= 25
        assert "too often, so it was not run for" in detail(outcomes[-1]) or "they may take" in detail(outcomes[-1])
        assert {reason(outcome) for outcome in (*outcomes, *again)} == {"codec_limit"}
        assert fields(other_codec[0]) == {"t": 27.2}
        assert fields(other_tenant[0]) == {"n": 1}

    async def test_while_loading_is_a_limit_too(self) -> None:
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", javascript.unsaved("while (true) {}"), [call()] * 3)

        assert [(reason(outcome), detail(outcome)) for outcome in outcomes] == [
            ("codec_limit", "the codec took too long to load")
        ] * 3


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
class TestACallThatEndsItsChild:
    @pytest.fixture(autouse=True)
    def _faults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let results `{"fault": n}` do in the child what a defect of the engine would."""
        faulty = """
import ctypes, os
from sens_payloads.codecs.sandbox import child
opened = child._Codec.open
def open_faulty(codec):
    opened(codec)
    step = codec._step
    def faulty(index):
        result = step(index)
        if result == '{"n":0}': ctypes.string_at(0)
        if result == '{"n":254}': os.getppid()
        if result == '{"n":255}': return "nonsense"
        if result == '{"n":253}':
            while True: pass
        return result
    codec._step = faulty
child._Codec.open = open_faulty
"""
        start = process._START
        imported = "from sens_payloads.codecs.sandbox.child import main;"
        assert imported in start
        monkeypatch.setattr(process, "_START", start.replace(imported, f"exec({faulty!r}); {imported}"))

    @pytest.mark.parametrize(
        ("fault", "words"),
        [
            (0, "it was ended by SIGSEGV"),
            (254, "it was ended by SIGSYS, because it called for something that a codec may not have"),
            (255, "it wrote something that is not an answer"),
            (253, "it did not come to an end"),
        ],
    )
    async def test_costs_its_message_alone_and_says_how(self, fault: int, words: str) -> None:
        calls = [Call(bytes([n])) for n in (*range(1, 200), fault, *range(1, 250))]
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", FIRST_BYTE, calls)

        assert detail(outcomes[199]) == f"the codec's process ended while it decoded this message: {words}"
        assert reason(outcomes[199]) == "codec_limit"
        others = outcomes[:199] + outcomes[200:]
        assert [fields(outcome)["n"] for outcome in others] == [*range(1, 200), *range(1, 250)]

    async def test_that_comes_again_and_again_is_not_run_for_a_while(self) -> None:
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", FIRST_BYTE, [Call(b"\0")] * 300)

        assert {reason(outcome) for outcome in outcomes} == {"codec_limit"}
        assert sum("SIGSEGV" in detail(outcome) for outcome in outcomes) <= 4


class TestTheEndOfAChild:
    async def test_is_told_with_its_reason(self) -> None:
        ends: list[str] = []
        async with Sandbox(max_children=1, note_end=ends.append) as sandbox:
            await sandbox.decode("a", GOOD, [call()])
            await sandbox.decode("b", GOOD, [call()])
            await sandbox.decode("b", ENDLESS, [call()] * 100)
            await sandbox.decode("c", GOOD, [call()])

        assert ends == ["room", "overrun", "stopped"]

    async def test_is_not_needed_where_a_codec_that_has_wasted_time_does_so_again_with_its_first_call(self) -> None:
        ends: list[str] = []
        async with Sandbox(note_end=ends.append) as sandbox:
            await sandbox.decode("a", GOOD, [call()])
            now = asyncio.get_running_loop().time()
            sandbox._tenants["a"].waste.charge(ENDLESS.sha256, CAPACITY_SECONDS - 0.05, now)
            outcomes = await sandbox.decode("a", ENDLESS, [call()] * 100)

        assert "100 ms" in detail(outcomes[0])
        assert {reason(outcome) for outcome in outcomes} == {"codec_limit"}
        assert all("it was not run for" in detail(outcome) for outcome in outcomes[1:])
        assert ends == ["stopped"]


class TestTenants:
    async def test_have_children_of_their_own(self) -> None:
        async with Sandbox() as sandbox:
            await asyncio.gather(*(sandbox.decode(tenant, GOOD, [call()]) for tenant in "abc"))
            processes = {child_of(sandbox, tenant).process_id for tenant in "abc"}

        assert len(processes) == 3

    async def test_beyond_the_number_of_children_take_the_longest_idle_one_s_turn(self) -> None:
        async with Sandbox(max_children=2) as sandbox:
            for tenant in "abac":
                await sandbox.decode(tenant, GOOD, [call()])
            kept = [tenant for tenant in "abc" if sandbox._tenants[tenant].child is not None]

        assert kept == ["a", "c"]

    async def test_wait_while_all_children_are_busy(self) -> None:
        async with Sandbox(max_children=2) as sandbox:
            outcomes = await asyncio.gather(*(sandbox.decode(n, GOOD, [call()] * 300) for n in range(8)))

            assert sum(tenant.child is not None for tenant in sandbox._tenants.values()) <= 2
        assert {fields(outcome)["t"] for group in outcomes for outcome in group} == {27.2}

    async def test_wait_for_their_own_calls(self) -> None:
        async with Sandbox() as sandbox:
            groups = await asyncio.gather(
                *(sandbox.decode("a", FIRST_BYTE, [Call(bytes([n]))] * 300) for n in range(5))
            )

        assert [{fields(outcome)["n"] for outcome in group} for group in groups] == [{n} for n in range(5)]

    async def test_that_are_idle_lose_their_child(self) -> None:
        async with Sandbox(idle_seconds=0.01) as sandbox:
            await sandbox.decode("a", GOOD, [call()])
            child = child_of(sandbox)
            async with asyncio.timeout(30):
                await child._closed
            (outcome,) = await sandbox.decode("a", GOOD, [call()])

        assert fields(outcome) == {"t": 27.2}

    async def test_get_a_new_child_once_theirs_has_lived_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sandboxes, "_LIFETIME_SECONDS", 0.0)
        async with Sandbox() as sandbox:
            await sandbox.decode("a", GOOD, [call()])
            first = child_of(sandbox)
            await sandbox.decode("a", GOOD, [call()])

            assert child_of(sandbox) is not first


class TestACancelledCall:
    async def test_leaves_nothing_for_the_next_one(self) -> None:
        async with Sandbox() as sandbox:
            await sandbox.decode("a", GOOD, [call()])
            task = asyncio.create_task(sandbox.decode("a", ENDLESS_FOR_ZERO, [Call(b"\0")]))
            await asyncio.sleep(0)  # it has taken the child and asked
            assert sandbox._tenants["a"].lock.locked()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            (outcome,) = await sandbox.decode("a", GOOD, [call()])

        assert fields(outcome) == {"t": 27.2}


class TestTheLoop:
    async def test_goes_on_while_a_child_computes(self) -> None:
        async with Sandbox() as sandbox:
            await sandbox.decode("a", GOOD, [call()])
            task = asyncio.create_task(sandbox.decode("a", ENDLESS, [call()]))
            turns = 0
            while not task.done():
                await asyncio.sleep(0)
                turns += 1

        assert turns > 100


class TestAChild:
    @pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
    async def test_has_three_descriptors_no_environment_and_no_rights(self) -> None:
        async with Sandbox() as sandbox:
            await sandbox.decode("a", GOOD, [call()])
            folder = Path(f"/proc/{child_of(sandbox).process_id}")
            status = dict(line.split(":\t", 1) for line in (folder / "status").read_text().splitlines())
            limits = (folder / "limits").read_text()
            if os.geteuid() == 0:
                assert (folder / "environ").read_bytes() == b""
                assert {descriptor.name for descriptor in (folder / "fd").iterdir()} == {"0", "1", "2"}
            assert child_of(sandbox).filtered
            assert folder.joinpath("mem").stat().st_uid == 0  # not dumpable: root's, whoever it runs as

        assert (status["Seccomp"], status["NoNewPrivs"], status["Threads"]) == ("2", "1", "1")
        for name in ("core file size", "file size", "processes"):
            (line,) = [line for line in limits.splitlines() if line.startswith(f"Max {name} ")]
            assert line.split()[-3:-1] == ["0", "0"]

    async def test_ends_with_its_sandbox(self) -> None:
        async with Sandbox() as sandbox:
            await sandbox.decode("a", GOOD, [call()])
            child = child_of(sandbox)

        assert not child.alive
        with pytest.raises(ProcessLookupError):
            os.kill(child.process_id, 0)

    async def test_that_was_killed_meanwhile_is_replaced(self) -> None:
        async with Sandbox() as sandbox:
            await sandbox.decode("a", GOOD, [call()])
            child = child_of(sandbox)
            os.kill(child.process_id, signal.SIGKILL)
            (outcome,) = await sandbox.decode("a", GOOD, [call()])

        assert fields(outcome) == {"t": 27.2}

    @pytest.mark.parametrize("kills", [1, 10])
    async def test_that_is_killed_again_and_again_costs_no_message(
        self, kills: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = kills
        answer = conversation.answer

        async def killing(child: process.Child, *rest: Any) -> Any:
            nonlocal left
            if left:
                left -= 1
                os.kill(child.process_id, signal.SIGKILL)
            return await answer(child, *rest)

        monkeypatch.setattr(conversation, "answer", killing)
        async with Sandbox() as sandbox:
            outcomes = await sandbox.decode("a", FIRST_BYTE, [Call(bytes([n])) for n in range(100)])
            again = await sandbox.decode("a", FIRST_BYTE, [Call(b"\7")])

        assert left == 0
        assert [fields(outcome)["n"] for outcome in outcomes + again] == [*range(100), 7]

    @pytest.mark.parametrize("kills", [1, 9])
    async def test_that_is_killed_while_it_starts_costs_no_message(
        self, kills: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = kills
        following = process.Child._next

        async def killing(child: process.Child) -> Any:
            nonlocal left
            if left:
                left -= 1
                os.kill(child.process_id, signal.SIGKILL)
            return await following(child)

        monkeypatch.setattr(process.Child, "_next", killing)
        async with Sandbox() as sandbox:
            (outcome,) = await sandbox.decode("a", FIRST_BYTE, [Call(b"\7")])

        assert (left, fields(outcome)) == (0, {"n": 7})

    def test_whose_end_is_half_known_costs_no_message(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[process.Child] = []
        child_for = Sandbox.child

        async def ending(sandbox: Sandbox, tenant: Any) -> process.Child:
            child = await child_for(sandbox, tenant)
            if not given:  # its pipe is closed some time before the end of the process is known
                os.kill(child.process_id, signal.SIGSTOP)
                stream = child._process.get_pipe_transport(0)
                assert stream is not None
                stream.close()
                for _ in range(3):
                    await asyncio.sleep(0)
                asyncio.get_running_loop().call_soon(os.kill, child.process_id, signal.SIGKILL)
            given.append(child)
            return child

        async def decoded() -> Outcome:
            async with Sandbox() as sandbox:
                (outcome,) = await sandbox.decode("a", FIRST_BYTE, [Call(b"\7")])
            return outcome

        monkeypatch.setattr(Sandbox, "child", ending)
        # As the service does: what is written to a closed transport is an error there.
        assert fields(uvloop.run(decoded())) == {"n": 7}
        assert given[0] is not given[-1]

    async def test_that_no_call_outlives_costs_the_call(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answer = conversation.answer

        async def killing(child: process.Child, *rest: Any) -> Any:
            os.kill(child.process_id, signal.SIGKILL)
            return await answer(child, *rest)

        monkeypatch.setattr(conversation, "answer", killing)
        async with Sandbox() as sandbox:
            (outcome,) = await sandbox.decode("a", FIRST_BYTE, [Call(b"\7")])

        assert detail(outcome) == "the codec's process ended while it decoded this message: it was ended by SIGKILL"

    async def test_where_rights_can_t_be_taken_away_there_is_an_error_that_says_what_to_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        patched = process._START.replace("import sys;", "import sys, platform; platform.machine = lambda: 'mips';")
        monkeypatch.setattr(process, "_START", patched)
        async with Sandbox() as sandbox:
            with pytest.raises(
                UnavailableError, match=r"no seccomp filter is known for linux on mips.*allow_without_seccomp"
            ):
                await sandbox.decode("a", GOOD, [call()])
        async with Sandbox(allow_without_seccomp=True) as sandbox:
            (outcome,) = await sandbox.decode("a", GOOD, [call()])
            assert not child_of(sandbox).filtered

        assert fields(outcome) == {"t": 27.2}

    async def test_that_can_t_be_started_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with Sandbox() as sandbox:
            monkeypatch.setattr(process, "_START", "raise SystemExit(3)")
            with pytest.raises(UnavailableError, match="does not start: it ended with status 3"):
                await sandbox.decode("a", GOOD, [call()])
            monkeypatch.setattr(sys, "executable", "/does/not/exist")
            with pytest.raises(UnavailableError, match="can't be started"):
                await sandbox.decode("a", GOOD, [call()])
            monkeypatch.undo()
            assert fields((await sandbox.decode("a", GOOD, [call()]))[0]) == {"t": 27.2}
