"""Messages that a source keeps are decoded again: what would change, and what has changed then."""

from sens_common.settings import DatabaseSettings
from support.redecoding import EUI, redecoding_worker

FIRST = "return {data: {t: b[0], old: b[1]}};"
SECOND = "return {data: {t: b[0] / 10, humidity: b[1]}};"


class TestKeptMessages:
    async def test_have_a_row_for_each_reading_and_the_payload_once(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST) as it:
            await it.settle({0: "0102"}, {1: "0304", 2: "0506"})

            rows = await it.fetch(
                "SELECT number, codec, multiple, cardinality(metric_ids), payload IS NOT NULL FROM sens.frames ORDER BY ts"
            )

        assert rows == [(0, "own@1", False, 2, True), (1, "own@1", True, 2, True), (1, "own@1", True, 2, False)]

    async def test_are_none_of_a_source_that_keeps_nothing(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST) as it:
            await it.execute("UPDATE sens.sources SET keep_frames = NULL")
            await it.settle({0: "0102"})

            assert await it.fetch("SELECT FROM sens.frames") == []


class TestDryRun:
    async def test_tells_what_would_change_and_changes_nothing(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.settle({0: "0102"}, {1: "0004"})
            before = await it.values()

            report = await it.run(2, "dry_run")

            assert await it.values() == before
        assert report["outcome"] == "finished"
        assert report["counts"] == {
            "messages": 2, "unchanged": 0, "changed": 2, "failed": 0,
            "added": 2, "changed_values": 1, "removed": 2, "uncovered": 0,
        }  # fmt: skip
        assert [(each["metric"], each["before"], each["after"]) for each in report["differences"][:3]] == [
            ("humidity", None, 2),
            ("old", 2, None),
            ("t", 1, 0.1),
        ]


class TestRedecoding:
    async def test_puts_what_messages_say_now_in_the_place_of_what_they_said(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.settle({0: "0102"}, {1: "0004"})

            await it.run(2)

            assert await it.values() == {
                (EUI, 0, "t"): 0.1,
                (EUI, 0, "humidity"): 2,
                (EUI, 1, "t"): 0,
                (EUI, 1, "humidity"): 4,
            }
            assert await it.fetch("SELECT DISTINCT codec, run_id FROM sens.frames") == [("own@2", 1)]
