"""Whether ``sens up --mqtt-url`` can use a broker that runs already."""

from pathlib import Path

import pytest

from sens_cli.up.house_broker import HouseBroker, check, house_broker
from sens_common.errors import SensError, SettingsError
from support.brokers import let_in, mosquitto
from support.servers import HOST, free_port


class TestOptions:
    def test_name_the_user_in_the_address_and_the_password_in_a_file(self, tmp_path: Path) -> None:
        file = tmp_path / "password"
        file.write_text("hidden\n")
        broker = house_broker("mqtt://my%40user@nas.local:1884/", file, None)
        assert broker.settings("c") == {
            "SENS_MQTT__URL": "mqtt://nas.local:1884",
            "SENS_MQTT__USERNAME": "my@user",
            "SENS_MQTT__PASSWORD": "hidden",
            "SENS_MQTT__CLIENT_ID": "c",
        }

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("mqtt://user:" + "hidden@nas", "holds a password"),
            ("http://nas", "mqtt://host:port"),
            ("mqtt://nas", "name one"),
        ],
    )
    def test_that_are_wrong_are_refused_without_the_password(self, tmp_path: Path, url: str, why: str) -> None:
        with pytest.raises(SettingsError, match=why) as caught:
            house_broker(url, tmp_path / "password", None)
        assert "hidden" not in str(caught.value)


class TestCheck:
    async def test_lets_in_who_has_the_password_and_says_so_to_others(self, tmp_path: Path) -> None:
        with mosquitto(access=let_in(tmp_path, "sens", "right")) as running:
            url = f"mqtt://{HOST}:{running.port}"
            await check(HouseBroker(url, "sens", "right"))
            with pytest.raises(SensError, match=r"refuses the connection: not authorized; check the user"):
                await check(HouseBroker(url, "sens", "wrong"))
            with pytest.raises(SensError, match=r"--mqtt-url"):
                await check(HouseBroker(f"mqtts://{HOST}:{running.port}"))

    async def test_says_that_nobody_is_there(self) -> None:
        with pytest.raises(SensError, match=r"can't be reached: .*; is it running"):
            await check(HouseBroker(f"mqtt://{HOST}:{free_port()}"))
