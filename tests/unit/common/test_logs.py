import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from sens_common.logs import configure_logs
from sens_common.version import product_version


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


class TestConfigureLogs:
    def test_writes_the_fixed_fields_first_and_the_others_by_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logs("example")

        structlog.get_logger().info("stored", tenant="demo", count=3)

        [line] = lines(capsys)
        assert list(line) == ["timestamp", "level", "service", "version", "event", "count", "tenant"]
        assert (line["level"], line["service"], line["version"]) == ("info", "example", product_version())
        assert (line["event"], line["count"]) == ("stored", 3)

    def test_writes_times_in_utc(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logs("example")

        structlog.get_logger().info("stored")

        assert str(lines(capsys)[0]["timestamp"]).endswith("Z")

    def test_keeps_an_entry_with_line_breaks_on_one_line(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logs("example")

        structlog.get_logger().error("first\nsecond", detail="a\r\nb\u2028c")

        assert [line["event"] for line in lines(capsys)] == ["first\nsecond"]

    def test_leaves_out_what_is_less_severe_than_the_level(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logs("example", "warning")

        structlog.get_logger().info("not this")
        structlog.get_logger().warning("this")

        assert [line["event"] for line in lines(capsys)] == ["this"]

    def test_gives_entries_of_libraries_the_same_form(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logs("example")

        logging.getLogger("some.library").warning("slow: %d s", 5)

        [line] = lines(capsys)
        assert list(line)[:5] == ["timestamp", "level", "service", "version", "event"]
        assert (line["event"], line["level"], line["logger"]) == ("slow: 5 s", "warning", "some.library")

    def test_keeps_the_chatter_of_libraries_out(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logs("example", "info")

        logging.getLogger("some.library").info("connected")

        assert lines(capsys) == []

    def test_writes_an_exception_as_one_field(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logs("example")

        try:
            int("no number")
        except ValueError:
            structlog.get_logger().exception("failed")

        [line] = lines(capsys)
        assert "ValueError: invalid literal" in str(line["exception"])

    def test_survives_values_that_json_does_not_know(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure_logs("example")

        structlog.get_logger().info("stored", payload=b"\xff", kinds={1})

        assert lines(capsys)[0]["payload"] == repr(b"\xff")
