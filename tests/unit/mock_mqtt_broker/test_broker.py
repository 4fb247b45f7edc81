"""The broker's configuration."""

import tomllib

import mqtt5
import pytest

from sens_mock_mqtt_broker.broker import _connect_packet, client_host, configuration
from sens_mock_mqtt_broker.settings import BrokerSettings


class TestConfiguration:
    def test_has_a_listener_for_each_version(self) -> None:
        parsed = tomllib.loads(configuration(BrokerSettings(host="0.0.0.0", port=2000, port_v5=2001)))  # noqa: S104 - no socket
        assert parsed["v4"]["1"]["listen"] == "0.0.0.0:2000"
        assert parsed["v5"]["1"]["listen"] == "0.0.0.0:2001"

    def test_brackets_an_ipv6_address(self) -> None:
        parsed = tomllib.loads(configuration(BrokerSettings(host="::1")))
        assert parsed["v4"]["1"]["listen"] == "[::1]:1883"

    def test_bounds_packets_connections_and_memory(self) -> None:
        parsed = tomllib.loads(configuration(BrokerSettings()))
        router = parsed["router"]
        assert router["max_connections"] == 1000
        assert router["max_segment_size"] * router["max_segment_count"] == 64 << 20
        assert all(parsed[version]["1"]["connections"]["max_payload_size"] >= 1 << 20 for version in ("v4", "v5"))

    def test_opens_no_other_port(self) -> None:
        assert set(tomllib.loads(configuration(BrokerSettings()))) == {"id", "router", "v4", "v5"}


class TestClientHost:
    @pytest.mark.parametrize(
        ("host", "reached_at"),
        [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("127.0.0.1", "127.0.0.1"), ("192.0.2.1", "192.0.2.1")],  # noqa: S104 - no socket
    )
    def test_is_where_a_client_on_this_machine_connects(self, host: str, reached_at: str) -> None:
        assert client_host(host) == reached_at


class TestProbe:
    def test_is_a_client_with_a_clean_session_and_a_name_of_its_own(self) -> None:
        data = _connect_packet(5, 7)
        packet, size = mqtt5.read(memoryview(data))
        assert isinstance(packet, mqtt5.ConnectPacket)
        assert (packet.client_id, packet.clean_start, packet.keep_alive, size) == (
            "sens-mock-broker-probe-7",
            True,
            10,
            len(data),
        )
