"""Codecs that want everything: time, memory, the process. Each costs its own message, and nothing else."""

import re
from pathlib import Path
from typing import Any

import pytest

from sens_payloads.codecs import javascript
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from support.codecs import TEMPERATURE, call, fields, javascript_vectors, reason

MAY_END_WELL = {"microtasks", "result_100MB"}


class TestEveryHostileCodec:
    @pytest.mark.parametrize("case", javascript_vectors("hostile"))
    async def test_ends_with_an_error_of_its_message_within_its_memory(self, case: dict[str, Any]) -> None:
        async with Sandbox() as sandbox:
            (good,) = await sandbox.decode("a", javascript.unsaved(TEMPERATURE), [call()])
            (outcome,) = await sandbox.decode("a", javascript.unsaved(case["code"]), [call()])
            child = sandbox._tenants["a"].child
            peak = peak_memory_bytes(child.process_id) if child is not None else 0
            (next_one,) = await sandbox.decode("a", javascript.unsaved(TEMPERATURE), [call()])

        if case["name"] not in MAY_END_WELL or not fields_or_none(outcome):
            assert reason(outcome) in {"codec_error", "codec_limit"}
        assert fields(good) == fields(next_one) == {"t": 27.2}
        assert peak < 256 << 20


def peak_memory_bytes(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text(encoding="ascii")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024


def fields_or_none(outcome: Any) -> Any:
    return getattr(outcome, "fields", None)
