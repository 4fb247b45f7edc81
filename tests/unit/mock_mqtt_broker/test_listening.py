"""How the broker is probed."""

import mqtt5
import pytest

from sens_mock_mqtt_broker.listening import client_host, connect_packet


class TestClientHost:
    @pytest.mark.parametrize(
        ("host", "reached_at"),
        [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("127.0.0.1", "127.0.0.1"), ("192.0.2.1", "192.0.2.1")],  # noqa: S104 - no socket
    )
    def test_is_where_a_client_on_this_machine_connects(self, host: str, reached_at: str) -> None:
        assert client_host(host) == reached_at


class TestProbe:
    def test_is_a_client_with_a_clean_session_and_a_name_of_its_own(self) -> None:
        data = connect_packet(5, 7)
        packet, size = mqtt5.read(memoryview(data))
        assert isinstance(packet, mqtt5.ConnectPacket)
        assert (packet.client_id, packet.clean_start, packet.keep_alive, size) == (
            "sens-mock-broker-probe-7",
            True,
            10,
            len(data),
        )
