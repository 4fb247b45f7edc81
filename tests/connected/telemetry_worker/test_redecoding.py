"""Messages that a source keeps are decoded again: what would change, and what has changed then."""

from sens_common.settings import DatabaseSettings
from support.redecoding import EUI, NOW, message_of, redecoding_worker

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
        assert {name: count for name, count in report["counts"].items() if count} == {
            "messages": 2, "changed": 2, "added": 2, "changed_values": 1, "removed": 2,
        }  # fmt: skip
        assert [(each["metric"], each["before"], each["after"]) for each in report["differences"][:3]] == [
            ("humidity", None, 2),
            ("old", 2, None),
            ("t", 1, 0.1),
        ]


class TestRedecoding:
    async def test_replaces_what_messages_said_by_what_they_say_now(self, database: DatabaseSettings) -> None:
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

    async def test_leaves_what_can_not_be_decoded_and_says_where_it_is(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, "if (b[0] == 1) { throw new Error('no'); } " + SECOND) as it:
            await it.settle({0: "0102"}, {1: "0004"})

            report = await it.run(2)

            assert await it.values() == {
                (EUI, 0, "t"): 1,
                (EUI, 0, "old"): 2,
                (EUI, 1, "t"): 0,
                (EUI, 1, "humidity"): 4,
            }
        assert report["counts"]["failed"] == 1
        assert [(each["reason"], each["sequence"], each["index"]) for each in report["errors"]] == [
            ("codec_error", 1, 0)
        ]

    async def test_deletes_readings_of_which_nothing_is_left_and_their_rollups(
        self, database: DatabaseSettings
    ) -> None:
        async with redecoding_worker(database, "return {data: {old: b[0]}};", "return {data: {ignored: 1}};") as it:
            await it.settle({0: "01"}, {1: "02"})
            await it.execute('UPDATE sens.profiles SET metrics = \'{"ignored": {"ignore": true}}\'')
            await it.refresh_rollups()

            await it.run(2)
            await it.refresh_rollups()

            assert await it.values() == {}
            assert await it.fetch("SELECT FROM sens.rollup_1h") == []

    async def test_takes_messages_from_the_stream_that_were_not_kept_and_says_what_is_nowhere(
        self, database: DatabaseSettings
    ) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.execute("UPDATE sens.sources SET keep_frames = NULL")
            await it.settle({0: "0102"})
            await it.settle({1: "0203"})
            await it.execute("UPDATE sens.sources SET keep_frames = 30")
            await it.settle({2: "0304"})
            it.stream.first = 2

            report = await it.run(2)

            assert await it.values() == {
                (EUI, 0, "t"): 1, (EUI, 0, "old"): 2,
                (EUI, 1, "t"): 0.2, (EUI, 1, "humidity"): 3,
                (EUI, 2, "t"): 0.3, (EUI, 2, "humidity"): 4,
            }  # fmt: skip
        assert report["counts"]["uncovered"] == 1
        assert [each["readings"] for each in report["uncovered"]] == [1]

    async def test_waits_until_all_is_stored_that_was_received_before(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.settle({0: "0102"})
            await it.settle({1: "0203"}, settled=False)
            run = await it.begin(2)
            waited = await it.runner.step()
            await it.store_envelope(2)
            it.stream.settled = 2
            while await it.runner.step():
                pass

            assert not waited
            assert (await it.report(run))["outcome"] == "finished"
            assert {metric for _, _, metric in await it.values()} == {"t", "humidity"}

    async def test_leaves_what_other_messages_say(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.settle({0: "0102"})
            run = await it.begin(2)
            await it.runner.step()
            await it.settle({0: "0102"})  # the same again, after the run began
            while await it.runner.step():
                pass

            assert (await it.report(run))["counts"]["failed"] == 1
            assert await it.values() == {(EUI, 0, "t"): 1, (EUI, 0, "old"): 2}

    async def test_brings_nothing_back_that_was_deleted_or_went_because_of_its_age(
        self, database: DatabaseSettings
    ) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.settle({0: "0102"}, {70: "0203"}, {140: "0304"})
            await it.delete(70, 71)
            await it.execute(
                f"INSERT INTO sens.expired SELECT id, 0, 'raw', to_timestamp({NOW // 1_000_000 + 1800}) FROM sens.devices"  # noqa: S608 - constants
            )

            await it.run(2)

            assert await it.values() == {
                (EUI, 0, "t"): 1, (EUI, 0, "old"): 2,
                (EUI, 140, "t"): 0.3, (EUI, 140, "humidity"): 4,
            }  # fmt: skip

    async def test_brings_no_metric_back_that_was_deleted(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, "return {data: {t: b[0] / 10, old: b[1]}};") as it:
            await it.settle({0: "0102"})
            await it.execute("UPDATE sens.sources SET keep_frames = NULL")
            await it.settle({1: "0304"}, {2: "0506"})
            await it.delete_metric("old", 1, 2)
            of_range = await it.run(2, "dry_run")
            await it.delete_metric("old")
            whole = await it.run(2, "dry_run")

            await it.run(2)

            assert (of_range["counts"]["added"], whole["counts"]["added"]) == (0, 0)
            assert await it.values() == {(EUI, 0, "t"): 0.1, (EUI, 1, "t"): 0.3, (EUI, 2, "t"): 0.5}
            await it.settle({3: "0708"})
            assert (EUI, 3, "old") in await it.values()

    async def test_takes_an_envelope_with_many_messages_of_the_device_in_several_steps(
        self, database: DatabaseSettings
    ) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.execute("UPDATE sens.sources SET keep_frames = NULL")
            await it.settle({0: "0102"})
            await it.settle(*({minute: "0a02"} for minute in range(1, 451)))

            report = await it.run(2)

            assert (report["counts"]["messages"], report["counts"]["uncovered"]) == (451, 0)
            values = await it.values()
            assert (len(values), {value for (_, minute, name), value in values.items() if name == "t" and minute}) == (
                902,
                {1},
            )

    async def test_leaves_messages_to_the_dead_letters_that_were_refused(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.execute("UPDATE sens.sources SET keep_frames = NULL")
            await it.settle({0: "0102"})
            await it.settle({0: "0902"})  # it says something else
            it.stream.first = 2

            report = await it.run(2)

            assert await it.fetch("SELECT reason FROM sens.dead_letters") == [("conflicting_value",)]
            assert await it.values() == {(EUI, 0, "t"): 1, (EUI, 0, "old"): 2}
        assert (report["counts"]["messages"], report["counts"]["uncovered"]) == (0, 1)

    async def test_ends_when_its_device_or_its_codec_is_gone(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, SECOND, SECOND + "//") as it:
            await it.settle({0: "0102"})
            first = await it.begin(3)
            await it.execute("DELETE FROM sens.codec_versions WHERE number = 3")
            while await it.runner.step():
                pass
            second = await it.begin(2)
            await it.delete_device()
            while await it.runner.step():
                pass

            failures = [(await it.report(run))["failure"] for run in (first, second)]
        assert failures == ["codec own@3 was deleted", f"device {EUI} was deleted, moved or renamed"]

    async def test_is_cancelled_between_two_steps(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.settle({0: "0102"})
            run = await it.begin(2)
            await it.runner.step()
            outcome = await it.as_tenant("SELECT sens.cancel_codec_run($1, 'somebody', NULL, NULL)", run)
            while await it.runner.step():
                pass

            assert outcome == "cancelled"
            assert (await it.report(run))["outcome"] == "cancelled"
            assert (EUI, 0, "old") in await it.values()

    async def test_of_a_message_of_several_devices_is_of_one_of_them(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            other = "70b3d57ed0a1b2c4"
            await it.settle_messages([message_of({EUI: "0102", other: "0304"})])

            await it.run(2)

            assert await it.values() == {
                (EUI, 0, "t"): 0.1, (EUI, 0, "humidity"): 2,
                (other, 0, "t"): 3, (other, 0, "old"): 4,
            }  # fmt: skip


class TestComparison:
    async def test_counts_over_kept_messages_the_stream_and_dead_letters(self, database: DatabaseSettings) -> None:
        first = "if (b[0] == 9) { throw new Error('first'); } return {data: {t: b[0]}};"
        second = "if (b[0] == 8) { throw new Error('second'); } return {data: {t: b[0] == 7 ? 70 : b[0]}};"
        async with redecoding_worker(database, first, second) as it:
            await it.settle({0: "01"}, {1: "07"}, {2: "08"}, {3: "09"})
            await it.execute("UPDATE sens.sources SET keep_frames = NULL")
            await it.settle({4: "02"}, {5: "09"})
            it.stream.first = 2

            report = await it.run(2, "compare", other_number=1, device=None)

        assert {name: count for name, count in report["counts"].items() if count} == {
            "messages": 6, "unchanged": 2, "changed": 1, "failing_before": 2, "failing_after": 1, "changed_values": 1,
        }  # fmt: skip
        assert [(each["device"], each["metric"], each["before"], each["after"]) for each in report["differences"]] == [
            (EUI, "t", 7, 70)
        ]

    async def test_takes_the_messages_of_one_source_alone(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.settle({0: "0102"})
            await it.execute(
                "INSERT INTO sens.sources (tenant_id, name, transport, format) SELECT id, 'push', 'http', 'netmore' FROM sens.tenants"
            )

            report = await it.run(2, "compare", other_number=1, device=None, source="push")

        assert report["counts"]["messages"] == 0

    async def test_goes_from_source_to_source(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST, SECOND) as it:
            await it.settle({0: "0102"})
            # One before the source of the message, and one after it.
            await it.execute(
                "INSERT INTO sens.sources (id, tenant_id, name, transport, format) OVERRIDING SYSTEM VALUE"
                " SELECT s.id + step, s.tenant_id, 'push' || step + 1, 'http', 'netmore' FROM sens.sources s, (VALUES (-1), (1)) AS v (step)"
            )

            report = await it.run(2, "compare", other_number=1, device=None)

        assert report["counts"]["messages"] == 1


class TestDeadLetters:
    async def test_of_a_wrong_codec_are_stored_when_they_are_replayed_with_the_next_version(
        self, database: DatabaseSettings
    ) -> None:
        async with redecoding_worker(database, "throw new Error('wrong');", SECOND) as it:
            await it.settle({0: "0102"})
            refused = await it.fetch("SELECT reason FROM sens.dead_letters")
            await it.execute("UPDATE sens.profiles SET codec_version = 2")
            await it.replay_letters()

            assert refused == [("codec_error",)]
            assert await it.values() == {(EUI, 0, "t"): 0.1, (EUI, 0, "humidity"): 2}
            assert await it.fetch("SELECT codec FROM sens.frames") == [("own@2",)]


class TestWhatIsKept:
    async def test_goes_with_a_deleted_range_and_a_message_goes_as_a_whole(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST) as it:
            await it.settle({0: "0102", 60: "0304"}, {1: "0506"})

            await it.delete(60, 61)

            assert await it.fetch("SELECT number FROM sens.frames") == [(1,)]

    async def test_goes_with_its_device_its_erasure_and_its_tenant(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST) as it:
            await it.settle({0: "0102"})
            await it.delete_device()
            after_deletion = await it.fetch("SELECT FROM sens.frames")
            await it.settle({1: "0102"})
            await it.as_tenant(
                f"SELECT sens.erase_device(sha256('{EUI}'), now() + interval '1 second', 'somebody', NULL, NULL)"
            )
            await it.finish_deletions()
            after_erasure = await it.fetch("SELECT FROM sens.frames")
            counted = await it.fetch("SELECT frames FROM sens.finished_deletions ORDER BY id")
            await it.settle({2: "0102"}, device="70b3d57ed0a1b2c4")
            before = await it.fetch("SELECT FROM sens.frames")
            await it.execute("SELECT sens.delete_tenant('demo', 'somebody')")
            await it.finish_deletions()

            assert (len(after_deletion), len(after_erasure), len(before)) == (0, 0, 1)
            assert counted == [(1,), (1,)]
            assert await it.fetch("SELECT FROM sens.frames") == []

    async def test_stays_behind_when_its_device_moves(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST) as it:
            await it.settle({0: "0102"})
            await it.execute(
                "INSERT INTO sens.tenants (name) VALUES ('other')",
                "INSERT INTO sens.api_keys (tenant_id, name, access, prefix, hash)"
                " SELECT id, 'move', 'read_write', 'p', sha256('key') FROM sens.tenants WHERE name = 'other'",
            )
            outcome = await it.as_tenant(
                f"SELECT outcome FROM sens.move_device('{EUI}', 'moved', sha256('key'), 'somebody', NULL, NULL)"  # noqa: S608 - a constant
            )
            await it.finish_deletions()

            assert outcome == "moved"
            assert await it.values() == {("moved", 0, "t"): 1, ("moved", 0, "old"): 2}
            assert await it.fetch("SELECT FROM sens.frames") == []

    async def test_goes_because_of_its_age_or_when_its_source_keeps_nothing(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST) as it:
            await it.settle({0: "0102"}, {1: "0304"})
            await it.execute("SELECT sens.expire_frames(1000)")
            young = await it.fetch("SELECT FROM sens.frames")
            # What goes as a whole, here a week without messages, goes alone.
            await it.execute("UPDATE sens.sources SET keep_frames = NULL", "SELECT sens.expire_frames(0)")
            await it.execute("SELECT sens.expire_frames(1)")
            half = await it.fetch("SELECT FROM sens.frames")
            await it.execute("SELECT sens.expire_frames(1000)")

            assert (len(young), len(half)) == (2, 1)
            assert await it.fetch("SELECT FROM sens.frames") == []

    async def test_counts_as_stored_bytes_of_its_tenant(self, database: DatabaseSettings) -> None:
        async with redecoding_worker(database, FIRST) as it:
            await it.settle(*({minute: "0102"} for minute in range(20)))
            await it.execute("DO $$ BEGIN WHILE sens.measure_partition() IS NOT NULL LOOP END LOOP; END $$")

            ((bytes_,),) = await it.fetch(
                "SELECT sum(t.bytes) FROM sens.tenant_sizes t JOIN sens.partition_sizes p USING (partition) WHERE p.part_of = 'frames'"
            )

        assert bytes_ > 0
