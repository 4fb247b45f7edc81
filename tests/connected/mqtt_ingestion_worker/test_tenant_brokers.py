"""Brokers of tenants' own, on real brokers and a real stream."""

from pathlib import Path

from sens_common.settings import NatsSettings
from support.brokers import let_in, mosquitto
from support.tenant_brokers import credential, serving, source


class TestBrokerThatAsksForAPassword:
    async def test_is_let_in_to_by_files_and_says_what_is_missing_or_wrong_until_then(
        self, nats: NatsSettings, tmp_path: Path
    ) -> None:
        with mosquitto(access=let_in(tmp_path, "sens", "first")) as broker:
            async with serving(nats, tmp_path / "credentials") as it:
                it.follow(demo=[source(broker, credential="house")])
                missing = await it.reaches("failed", "credential_missing")
                assert missing.detail.endswith(f"there is no folder {tmp_path}/credentials/demo/house")
                credential(tmp_path / "credentials", "demo", "house", username="sens\n", password="wrong")
                refused = await it.reaches("failed", "bad_credentials")
                assert "the broker refuses the connection: not authorized" in refused.detail
                credential(tmp_path / "credentials", "demo", "house", password="first\n")
                connected = await it.reaches("connected")
                assert (connected.messages, connected.last_message_at) == (0, None)
