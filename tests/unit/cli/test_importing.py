"""Lines of files that are imported, and going on where an import was ended."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from sens_cli.api import RefusedByApiError
from sens_cli.importing.files import Columns, Line, csv_lines, json_lines, message_lines, opened
from sens_cli.importing.progress import Progress, identity_of, read_progress
from sens_cli.importing.sending import BATCH_LINES, RefusedLine, Target, send_lines
from sens_common.errors import SettingsError, UnavailableError


def rows(text: str, columns: Columns | None = None) -> list[tuple[int, str | None, Any]]:
    lines = csv_lines(io.StringIO(text, newline=""), columns or Columns())
    return [(line.number, line.device, line.refusal or json.loads(line.payload)) for line in lines]


class TestCsv:
    def test_has_a_metric_in_each_column_that_is_not_time_or_device(self) -> None:
        text = "time,device,t,on,word\r\n2026-01-01T00:00:00Z,a,21.5,true,x\r\n1767225600,b,,false,\r\n"
        assert rows(text) == [
            (2, "a", {"ts": "2026-01-01T00:00:00+00:00", "t": 21.5, "on": True, "word": "x"}),
            (3, "b", {"ts": 1767225600, "on": False}),
        ]

    def test_takes_the_columns_that_are_named(self) -> None:
        columns = Columns("Zeit", "d", metrics={"temperature": "T [C]"}, zone=ZoneInfo("Europe/Vienna"))
        assert rows("Zeit,T [C],other\n2026-07-01 12:00,20,1\n", columns) == [
            (2, "d", {"ts": "2026-07-01T12:00:00+02:00", "temperature": 20.0})
        ]

    def test_of_the_platform_itself_is_understood(self) -> None:
        text = (
            "time,device,metric,value\r\n2026-01-01T00:00:00Z,a,t,1.5\r\n# next: x\r\n2026-01-01T00:00:00Z,a,s,on\r\n"
        )
        assert [each[2] for each in rows(text)] == [
            {"ts": "2026-01-01T00:00:00+00:00", "t": 1.5},
            {"ts": "2026-01-01T00:00:00+00:00", "s": "on"},
        ]

    def test_refuses_a_row_that_is_too_short_and_counts_lines_within_quotes(self) -> None:
        assert rows('time,device,s\n1767225600,a,"x\ny"\n1767225600\n') == [
            (3, "a", {"ts": 1767225600, "s": "x\ny"}),
            (4, None, "it has 1 cells, and the header 3"),
        ]

    @pytest.mark.parametrize(("cell", "value"), [("nan", "nan"), ("1_000", "1_000"), ("1e400", "1e400"), ("-3", -3.0)])
    def test_takes_only_finite_plain_numbers_for_numbers(self, cell: str, value: object) -> None:
        assert rows(f"time,device,v\n1767225600,a,{cell}\n")[0][2]["v"] == value

    def test_without_a_column_that_is_needed_is_refused(self) -> None:
        with pytest.raises(SettingsError, match="no column device; it has time, t"):
            rows("time,t\n1767225600,1\n")


class TestOtherLines:
    def test_of_json_name_their_device(self) -> None:
        lines = list(json_lines(io.StringIO('{"id":"a","ts":1,"t":2}\n\n{"ts":1}\nno\n'), None, "id"))
        assert lines[0] == Line(1, "a", '{"ts": 1, "t": 2}')
        assert [(line.number, line.refusal is None) for line in lines] == [(1, True), (3, False), (4, False)]

    def test_of_a_source_are_messages(self, tmp_path: Path) -> None:
        path = tmp_path / "a.lp.gz"
        path.write_bytes(gzip.compress(b"# comment\nm,device=a t=1 1767225600000000000\n\n"))
        with opened(path) as text:
            assert list(message_lines(text)) == [Line(2, None, "m,device=a t=1 1767225600000000000")]


class Api:
    """Takes lines, and ends the program or is away when it is told to."""

    def __init__(self, *, ends_after: int = 1000, away: int = 0, busy: int = 0) -> None:
        self.taken: list[int] = []
        self._requests_left = ends_after
        self._away = away
        self._busy = busy

    def post_document(self, path: str, document: Any) -> Any:
        assert path == "imports"
        if self._away:
            self._away -= 1
            raise UnavailableError("away")
        if self._busy:
            self._busy -= 1
            raise RefusedByApiError("busy", 429)
        self.taken += [line["line"] for line in document["lines"]]
        self._requests_left -= 1
        if self._requests_left < 0:  # the lines are taken, and nobody hears of it
            raise KeyboardInterrupt
        refused = [
            {"line": n, "reason": "too_old", "detail": ""}
            for line in document["lines"]
            if (n := line["line"]) % 100 == 0
        ]
        return {"accepted": len(document["lines"]) - len(refused), "refused": refused}


def lines(count: int) -> Iterator[Line]:
    yield from (Line(number, "a", "{}") for number in range(1, count + 1))


class TestImport:
    def test_that_was_ended_goes_on_with_the_lines_that_were_not_answered(self, tmp_path: Path) -> None:
        count, state = 4 * BATCH_LINES + 7, tmp_path / "state"
        refused: list[RefusedLine] = []
        progress = read_progress(state, "x")
        first, second = Api(ends_after=2), Api(away=2)
        with pytest.raises(KeyboardInterrupt):
            send_lines(first, lines(count), Target(), progress, state, refused=refused.append, tell=lambda _: None)
        progress = read_progress(state, "x")
        assert progress.lines == 2 * BATCH_LINES
        send_lines(
            second,
            lines(count),
            Target(),
            progress,
            state,
            refused=refused.append,
            tell=lambda _: None,
            sleep=lambda _: None,
        )
        assert set(first.taken) | set(second.taken) == set(range(1, count + 1))
        assert second.taken[0] == 2 * BATCH_LINES + 1
        end = read_progress(state, "x")
        assert (end.lines, end.accepted, end.refused, end.complete) == (count, count - 20, 20, True)
        assert [each.line for each in refused] == list(range(100, count + 1, 100))

    def test_waits_for_its_turn_as_long_as_the_platform_is_busy(self, tmp_path: Path) -> None:
        api, slept = Api(busy=100), list[float]()
        progress = read_progress(tmp_path / "state", "x")
        send_lines(
            api, lines(3), Target(), progress, tmp_path / "state",
            refused=lambda _: None, tell=lambda _: None, sleep=slept.append,
        )  # fmt: skip
        assert (api.taken, len(slept)) == ([1, 2, 3], 100)

    def test_of_another_file_does_not_go_on(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_text("1")
        (tmp_path / "b").write_text("2")
        one = identity_of(tmp_path / "a", {"csv": True})
        assert one not in {identity_of(tmp_path / "b", {"csv": True}), identity_of(tmp_path / "a", {"csv": False})}
        Progress(one).write(tmp_path / "state")
        with pytest.raises(SettingsError, match="another file"):
            read_progress(tmp_path / "state", "other")
