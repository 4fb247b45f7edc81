"""What the page of dead-letter reasons says beside each reason's meaning: an example, and what to do."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from sens_common.dead_letters import Reason


class Help(NamedTuple):
    """An example of a reason and what to do about it, in Markdown.

    Attributes:
        example: Payloads or a topic in code. What is only code is published by a test, which expects the reason.
        remedy: What helps.
    """

    example: str
    remedy: str


HELP: Final[Mapping[Reason, Help]] = MappingProxyType(
    {
        Reason.INVALID_TOPIC: Help(
            "`sens/v1/demo/küche/telemetry`",
            "Publish to `sens/v1/{tenant}/{device}/telemetry`, or let the source's rule replace other characters (`other_characters`).",
        ),
        Reason.UNKNOWN_TENANT: Help(
            "`sens/v1/nobody/kitchen/telemetry`",
            "[Create the tenant](../guides/tenants-and-keys.md), then replay; or let the device name another tenant.",
        ),
        Reason.UNKNOWN_SOURCE: Help(
            "The source `field` was disabled or deleted while its messages were on their way.",
            "Enable or create the source (`sens sources change field --enable`), then replay.",
        ),
        Reason.UNKNOWN_DEVICE: Help(
            "A source that was made with `--no-register`, and a device that has not sent before.",
            "`sens sources change field --register`, then replay. Devices that are known then stay so, also with `--no-register`.",
        ),
        Reason.NO_CODEC: Help(
            'A frame of Netmore, `"payload": "03670110"`, of a device without a profile.',
            "Give the source a profile that has a codec: `sens profiles create climate --codec cayenne_lpp`, `sens sources change field --profile"
            " climate`. Then replay.",
        ),
        Reason.MALFORMED_PAYLOAD: Help(
            '`{"temperature": 21.5`',
            "Look at the payload (`sens dead-letters show`). Is it meant for another source or format? Else the device has to send something else.",
        ),
        Reason.UNSUPPORTED_VALUE: Help(
            '`{"counter": 9007199254740993}`',
            "Send such an integer as a text, and something other than nulls. In a profile, `ignore` leaves out a field of a source.",
        ),
        Reason.INVALID_METRIC: Help(
            '`{"": 21.5}`', "Give the value a name: in the device, in the codec, or in the profile."
        ),
        Reason.TOO_LARGE: Help(
            '`{"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": 1}}}}}}}}}`',
            "Send less in one message. [The limits](payload-limits.md).",
        ),
        Reason.INVALID_TIME: Help(
            '`{"ts": "2026-09-04T08:00:00", "temperature": 21.5}`',
            "Send the time with its zone (`Z`, `+02:00`). For a source of JSON, `time_offset` says it in the device's place, and `unusable_time`"
            " takes the receipt.",
        ),
        Reason.IMPLAUSIBLE_TIME: Help(
            '`{"ts": "1970-01-01T00:00:05Z", "temperature": 21.5}`',
            "Set the device's clock. The message itself keeps its time.",
        ),
        Reason.UNKNOWN_ALIAS: Help(
            "`NDATA` with alias 7, and no `NBIRTH` of its edge node before it.",
            "Let the edge node send its births again (`Node Control/Rebirth`): what they explain is replayed then.",
        ),
        Reason.CONFLICTING_VALUE: Help(
            '`{"ts": "2026-09-04T08:00:00Z", "temperature": 21.5}` `{"ts": "2026-09-04T08:00:00Z", "temperature": 22.0}`',
            "Find out who sends twice. Two sensors need two names, and a device that measures more than once a second needs finer times.",
        ),
        Reason.TOO_OLD: Help(
            '`{"ts": "2001-01-01T00:00:00Z", "temperature": 21.5}`',
            "Raise the limit (`sens tenants limits demo --late-days 3650`), then replay.",
        ),
        Reason.LIMIT_REACHED: Help(
            "The 10,001st metric of a tenant, because a program puts a counter into its name.",
            "[Delete](../guides/tenants-and-keys.md#delete-devices-and-metrics) what nobody needs, or"
            " [raise the limit](../guides/tenants-and-keys.md#limits); then replay.",
        ),
        Reason.TOO_MANY_NEW_NAMES: Help(
            "The 1,001st new metric within an hour of the clock.",
            "Replay in the next hour, or [raise the limit](../guides/tenants-and-keys.md#limits) first.",
        ),
        Reason.CODEC_ERROR: Help(
            "`line 3: ReferenceError: x is not defined`, for a frame on a port that the [codec](../guides/write-a-codec.md#errors) does not know.",
            "Save a new version that reads these bytes, give it to the profile (`sens profiles change climate --codec mine@2`), then replay.",
        ),
        Reason.CODEC_LIMIT: Help(
            "`while (true)` in a codec.",
            "Save a version that needs less time and memory, then replay. Where the sentence says that the codec was not run, look for the messages"
            " before it.",
        ),
        Reason.REFUSED_BY_DATABASE: Help(
            "A trigger of somebody's own on the tables of `sens`.",
            "The sentence holds the database's own words. Repair that, then replay.",
        ),
    }
)
