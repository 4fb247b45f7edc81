"""``sens redecode`` and ``sens codecs compare`` with a running platform: from a wrong codec to values that are put right."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from support.platform import Platform
from support.servers import wait_until

DEVICE = "70b3d57ed0a1b2d5"
WRONG = "function decodeUplink(input) { return {data: {t: input.bytes[0]}}; }"
RIGHT = "function decodeUplink(input) { if (input.bytes[0] == 9) { throw new Error('nine'); } return {data: {t: input.bytes[0] / 10}}; }"
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def run(platform: Platform, *arguments: str) -> str:
    done = platform.sens(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def message(minute: int, data: str) -> str:
    time = (NOW + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    return json.dumps([{"devEui": DEVICE, "timestamp": time, "payload": data, "fPort": "2"}])


def stored(platform: Platform) -> list[float]:
    answer = platform.sens("measurements", DEVICE, "--metric", "t", "--json")
    return sorted(each["value"] for each in json.loads(answer.stdout)) if answer.returncode == 0 else []


@pytest.fixture(scope="module")
def source(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """The platform with a source that keeps its messages, two versions of its codec, and three messages that the first one has decoded."""
    folder = tmp_path_factory.mktemp("codec")
    for name, text in (("wrong.js", WRONG), ("right.js", RIGHT)):
        (folder / name).write_text(text)
    run(platform, "codecs", "create", "meter", str(folder / "wrong.js"))
    run(platform, "profiles", "create", "meter", "--codec", "meter@1")
    topic = "redecoded/up"
    run(
        platform, "sources", "create", "redecoded", "--format", "netmore", "--topic", topic, "--profile", "meter",
        "--keep-frames", "30",
    )  # fmt: skip
    wait_until(
        lambda: platform.sens("publish", "--topic", topic, message(0, "15")).returncode == 0, "the topic is subscribed"
    )
    for minute, data in ((1, "16"), (2, "09")):
        run(platform, "publish", "--topic", topic, message(minute, data))
    wait_until(lambda: len(stored(platform)) == 3, "the messages are stored")
    run(platform, "codecs", "create", "meter", str(folder / "right.js"))
    return platform


class TestComparison:
    def test_tells_what_the_versions_make_of_the_messages(self, source: Platform) -> None:
        found = json.loads(run(source, "codecs", "compare", "meter@1", "meter@2", "--since", "24h", "--json"))
        assert (found["state"], found["counts"]["messages"], found["counts"]["changed"]) == ("finished", 3, 2)
        assert found["counts"]["failing_after"] == 1

        text = run(source, "codecs", "compare", "meter@1", "meter@2", "--source", "redecoded")
        rows = [line.split()[1:] for line in text.splitlines() if DEVICE in line]
        assert [(device, metric, float(before), float(after)) for device, metric, before, after in rows] == [
            (DEVICE, "t", 21, 2.1),
            (DEVICE, "t", 22, 2.2),
        ]
        assert "nine" in text


class TestRedecoding:
    def test_shows_what_would_change_and_changes_it_then(self, source: Platform) -> None:
        order = ("redecode", "--device", DEVICE, "--from", "-7d", "--codec", "meter@2")
        dry = run(source, *order, "--dry-run")
        assert stored(source) == [9, 21, 22]
        assert "2.1" in dry
        assert "codec_error" in dry

        done = json.loads(run(source, *order, "--json"))

        assert (done["state"], done["counts"]["changed_values"], done["counts"]["failed"]) == ("finished", 2, 1)
        assert stored(source) == [2.1, 2.2, 9]

    def test_of_an_unknown_device_or_version_is_refused_in_words(self, source: Platform) -> None:
        for device, codec in (("nobody", "meter@2"), (DEVICE, "meter@7")):
            refused = source.sens("redecode", "--device", device, "--from", "-7d", "--codec", codec)
            assert refused.returncode == 1
            assert "Not found" in refused.stderr
