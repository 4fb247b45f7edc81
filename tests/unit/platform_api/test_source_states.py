"""What the API tells of a source's state."""

from typing import Literal

from sens_common.source_states import Downlinks, SourceState, WorkerStates
from sens_platform_api.sources.jetstream import united
from sens_platform_api.sources.repository import Source
from sens_platform_api.sources.schemas import StateDocument

URL = "https://network.example.org/devices/d/down/push"


def source(network_format: str, transport: Literal["mqtt", "http"] = "http") -> Source:
    return Source(
        "push",
        transport=transport,
        topic_filter=None,
        format=network_format,
        settings={},
        registers_devices=True,
        radio=False,
        default_profile=None,
        profile_rules=[],
        enabled=True,
        keep_frames=None,
        broker=None,
    )


class TestState:
    def test_says_whether_tokens_are_checked_where_there_are_some(self) -> None:
        told = {"push": SourceState("connected", checks_token=True)}
        assert StateDocument.of(source("actility"), told).checks_token is True
        assert StateDocument.of(source("actility"), {"push": SourceState("connected")}).checks_token is False
        assert StateDocument.of(source("netmore"), told).checks_token is None

    def test_of_http_that_nobody_tells_says_what_may_be_missing(self) -> None:
        assert "ingest key" in (StateDocument.of(source("netmore"), {}).detail or "")
        assert "ingest key" not in (StateDocument.of(source("netmore", "mqtt"), {}).detail or "")

    def test_of_several_workers_has_the_newest_downlinks_and_the_weakest_check(self) -> None:
        one = SourceState(
            "connected", last_message_at=1, messages=2, checks_token=True, downlinks=Downlinks(push="https://old")
        )
        two = SourceState("connected", last_message_at=2, messages=3, downlinks=Downlinks(push=URL))
        idle = SourceState("connected", last_message_at=3, messages=1, checks_token=True)
        state = united([WorkerStates(f"w{at}", {"push": each}) for at, each in enumerate((one, two, idle))])["push"]
        assert state == SourceState("connected", last_message_at=3, messages=6, downlinks=Downlinks(push=URL))
        document = StateDocument.of(source("the_things_stack"), {"push": state})
        assert (document.downlink_push, document.downlink_replace, document.messages) == (URL, None, 6)
