"""Laws of the simulated series."""

from hypothesis import given, settings
from hypothesis import strategies as st

from sens_mock_mqtt_broker import series
from sens_mock_mqtt_broker.series import DAY, HOUR, MINUTE, OUTAGE_LONGEST, OUTAGE_WINDOW, SECOND, Outage, sensor

YEAR_2026 = 1_767_225_600 * SECOND
seeds = st.integers(0, 2**63 - 1)
numbers = st.integers(0, 9_999)
times = st.integers(YEAR_2026, YEAR_2026 + 3650 * DAY)


class TestReproducibility:
    def test_known_values_stay_what_they_are(self) -> None:
        one = sensor(1, 0)
        time = YEAR_2026 + 12 * HOUR
        assert one.name == "sensor-0001"
        assert (
            series.temperature(one, time),
            series.humidity(one, time),
            series.battery(one, time),
            series.door_open(one, time),
            series.firmware(one, time),
        ) == (24.33, 36.5, 58.81, True, "4.6.1")

    @given(seeds, numbers)
    def test_the_same_seed_and_number_give_the_same_sensor(self, seed: int, number: int) -> None:
        assert sensor(seed, number) == sensor(seed, number)

    @given(seeds, numbers)
    def test_another_seed_or_number_gives_another_sensor(self, seed: int, number: int) -> None:
        keys = {sensor(seed, number).key, sensor(seed + 1, number).key, sensor(seed, number + 1).key}
        assert len(keys) == 3


class TestBounds:
    @given(seeds, numbers, times)
    def test_values_are_plausible(self, seed: int, number: int, time: int) -> None:
        one = sensor(seed, number)
        assert 5 <= series.temperature(one, time) <= 35
        assert 15 <= series.humidity(one, time) <= 85
        assert 10 <= series.battery(one, time) <= 100
        assert series.firmware(one, time).count(".") == 2

    @given(seeds, numbers, times, st.integers(0, MINUTE))
    def test_the_temperature_does_not_jump(self, seed: int, number: int, time: int, step: int) -> None:
        one = sensor(seed, number)
        assert abs(series.temperature(one, time + step) - series.temperature(one, time)) < 0.6

    @given(seeds, numbers)
    def test_afternoons_are_warmer_than_nights(self, seed: int, number: int) -> None:
        one = sensor(seed, number)
        assert series.temperature(one, YEAR_2026 + 15 * HOUR) > series.temperature(one, YEAR_2026 + 3 * HOUR)

    @given(seeds, numbers, times, st.integers(0, DAY))
    def test_the_battery_only_falls_until_it_is_replaced(self, seed: int, number: int, time: int, step: int) -> None:
        one = sensor(seed, number)
        before, after = series.battery(one, time), series.battery(one, time + step)
        assert after <= before or (before < 11 and after > 99)

    @settings(max_examples=20)
    @given(seeds, numbers)
    def test_the_door_opens_by_day_more_often_than_by_night(self, seed: int, number: int) -> None:
        one = sensor(seed, number)
        minutes = [YEAR_2026 + minute * MINUTE for minute in range(7 * 24 * 60)]
        opened = [minute for minute in minutes if series.door_open(one, minute)]
        by_day = [minute for minute in opened if 7 <= minute % DAY // HOUR < 20]
        assert 100 < len(opened) < 1500
        assert len(by_day) > len(opened) / 2

    @given(seeds, numbers, times)
    def test_the_firmware_changes_at_most_once_in_45_days(self, seed: int, number: int, time: int) -> None:
        one = sensor(seed, number)
        assert len({series.firmware(one, time + day * DAY) for day in range(45)}) <= 2


class TestOutages:
    @given(seeds, numbers, times)
    def test_an_outage_ends_within_three_minutes(self, seed: int, number: int, time: int) -> None:
        one = sensor(seed, number)
        if series.outage(one, time) is not None:
            assert series.outage(one, time + OUTAGE_LONGEST) is None

    def test_sensors_are_silent_for_a_few_percent_of_the_time_of_either_kind(self) -> None:
        seen = [
            series.outage(sensor(7, number), YEAR_2026 + window * OUTAGE_WINDOW + moment * 15 * SECOND)
            for number in range(20)
            for window in range(50)
            for moment in range(60)
        ]
        off, unreachable = (seen.count(kind) / len(seen) for kind in (Outage.OFF, Outage.UNREACHABLE))
        assert 0.005 < off < 0.03
        assert 0.005 < unreachable < 0.03
