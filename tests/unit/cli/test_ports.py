"""The port table."""

import pytest

from sens_cli.up.ports import Ports, ports
from sens_common.errors import SettingsError


class TestTheTable:
    def test_has_the_documented_numbers(self) -> None:
        table = ports(0)
        assert (table.api, table.docs, table.mqtt, table.mqtt5) == (8000, 8080, 1883, 1884)
        assert (table.nats, table.nats_monitoring, table.postgres) == (4222, 8222, 5432)

    def test_gives_every_listener_a_port_of_its_own(self) -> None:
        assert len(set(Ports())) == len(Ports())

    def test_moves_all_ports_together(self) -> None:
        assert ports(1000) == tuple(port + 1000 for port in ports(0))

    @pytest.mark.parametrize("offset", [57_314, -1_883, 10**9])
    def test_refuses_an_offset_that_moves_a_port_out_of_range(self, offset: int) -> None:
        with pytest.raises(SettingsError, match="accepts -1882 to 57313"):
            ports(offset)

    @pytest.mark.parametrize(
        ("offset", "sentence"),
        [
            (2080, "gives the API port 10080, which browsers refuse to open; choose another offset, 2081 for example"),
            (2000, "gives the documentation port 10080"),
            (-1335, "gives the API port 6665, which browsers refuse to open; choose another offset, -1336 for example"),
        ],
    )
    def test_refuses_an_offset_with_which_browsers_refuse_a_page(self, offset: int, sentence: str) -> None:
        with pytest.raises(SettingsError) as caught:
            ports(offset)
        assert sentence in str(caught.value)
