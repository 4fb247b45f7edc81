"""Which devices have a layout."""

import pytest

from sens_common.envelope import Message
from sens_telemetry_worker.decoders import native
from sens_telemetry_worker.decoders.native_layout import NativeLayout
from sens_telemetry_worker.layouts import KnownLayouts
from sens_telemetry_worker.tenants import Device, Tenant

NOW = 1_769_860_800_000_000
DEVICE = Device(1, "d1", Tenant(1, "demo"))
ORDINARY = b'{"a": 1.5}'


def batch(*payloads: bytes) -> tuple[list[Message], list[Device | None]]:
    messages = [Message("sens/v1/demo/d1/telemetry", payload, NOW + n) for n, payload in enumerate(payloads)]
    return messages, [DEVICE] * len(messages)


@pytest.fixture
def layouts() -> KnownLayouts:
    """Layouts of a device that has sent two ordinary payloads."""
    known = KnownLayouts(native)
    for _ in range(2):
        known.note(DEVICE, ("a",), ORDINARY)
    return known


class TestDevice:
    def test_has_no_layout_after_its_first_payload(self) -> None:
        known = KnownLayouts(native)
        known.note(DEVICE, ("a",), ORDINARY)

        assert known.decode(*batch(*[ORDINARY] * 10)).others == list(range(10))

    def test_has_one_after_the_second_with_the_same_names(self, layouts: KnownLayouts) -> None:
        decoded = layouts.decode(*batch(*[ORDINARY] * 10))

        assert decoded.others == []
        assert decoded.shapes[0].numbers[:, 0].tolist() == [1.5] * 10

    def test_whose_names_change_gets_none(self) -> None:
        known = KnownLayouts(native)
        for number in range(10):
            known.note(DEVICE, (f"a{number}",), f'{{"a{number}": 1}}'.encode())

        assert known.decode(*batch(*[ORDINARY] * 10)).others == list(range(10))

    def test_whose_payloads_never_fit_is_tried_three_times_and_again_after_a_thousand_batches(
        self, layouts: KnownLayouts
    ) -> None:
        strange = batch(*[ORDINARY] * 9, b'{"a": null}')

        def attempt() -> bool:
            left_over = layouts.decode(*strange).others
            for _ in range(2):
                layouts.note(DEVICE, ("a",), ORDINARY)
            return left_over == [9]

        assert [attempt() for _ in range(5)] == [True, True, True, False, False]
        for _ in range(1000):
            layouts.decode([], [])
        attempt()
        assert attempt()

    def test_is_learned_once_while_its_batches_are_small(self) -> None:
        asked: list[bytes] = []

        class Counting:
            decode = staticmethod(native.decode)
            decode_if_flat = staticmethod(native.decode_if_flat)

            @staticmethod
            def layout_of(payload: bytes) -> NativeLayout | None:
                asked.append(payload)
                return native.layout_of(payload)

        known = KnownLayouts(Counting())
        for _ in range(10):
            known.note(DEVICE, ("a",), ORDINARY)

        assert asked == [ORDINARY]
