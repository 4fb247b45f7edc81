"""Children's notes and last words."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sens_cli.up.process import end_leftovers, last_line, process_identity, write_note


class TestLeftovers:
    def test_are_ended_and_named(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            write_note(tmp_path / "nats.pid", child.pid)
            assert end_leftovers(tmp_path) == ["nats"]
            assert child.wait() != 0
        assert list(tmp_path.iterdir()) == []

    def test_are_left_alone_when_the_number_is_another_process_now(self, tmp_path: Path) -> None:
        (tmp_path / "nats.pid").write_text(json.dumps({"process": os.getpid(), "identity": "another start"}))
        assert end_leftovers(tmp_path) == []
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("content", ["", "[]", "{}", '{"process": "x", "identity": 1}', '{"process": 1}'])
    def test_are_none_when_the_note_says_nothing(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "nats.pid").write_text(content)
        assert end_leftovers(tmp_path) == []

    def test_are_none_when_the_process_has_ended(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            write_note(tmp_path / "nats.pid", child.pid)
            child.kill()
        assert process_identity(child.pid) is None
        assert end_leftovers(tmp_path) == []


class TestLastWords:
    def test_are_the_error_of_a_structured_line(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text('{"event": "stopped by an error", "error": "the disk is full"}\n\n')
        assert last_line(log) == "the disk is full"

    def test_are_event_and_error_otherwise(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text('{"event": "retrying", "error": "no answer"}\n')
        assert last_line(log) == "retrying: no answer"

    def test_are_the_line_itself_when_it_is_text(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_bytes(b"first\nModuleNotFoundError: \xff\n")
        assert last_line(log) == "ModuleNotFoundError: \N{REPLACEMENT CHARACTER}"

    def test_are_bounded(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("x" * 100_000)
        assert len(last_line(log)) == 300

    def test_are_none_without_a_log(self, tmp_path: Path) -> None:
        assert last_line(tmp_path / "missing") == ""
