"""``sens publish``: a message in."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sens_cli.options import MQTT_URL_VARIABLE, ApiKey, ApiUrl
from sens_common.command_line.options import DataDir, Json
from sens_common.errors import SensError

if TYPE_CHECKING:
    from sens_cli.fate import Seen

_LARGEST_PAYLOAD: Final = 8_000_000


def publish(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[
        str | None,
        typer.Argument(help="Device that the message is from; left out with --topic.", show_default=False),
    ] = None,
    payload: Annotated[
        str | None, typer.Argument(help="Payload as it is; - reads it from standard input.", show_default=False)
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "-m",
            help="name=value, instead of a payload; may be repeated. A value that is not JSON is a text.",
        ),
    ] = None,
    tenant: Annotated[str, typer.Option(help="Tenant that the device belongs to.")] = "demo",
    topic: Annotated[str | None, typer.Option(help="Topic, instead of sens/v1/TENANT/DEVICE/telemetry.")] = None,
    mqtt_url: Annotated[
        str | None,
        typer.Option(
            envvar=MQTT_URL_VARIABLE, help="MQTT 5 broker, mqtt://host:port. (default: the running instance's)"
        ),
    ] = None,
    wait: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=600,
            metavar="SECONDS",
            help="Wait until the message is stored or dead-lettered, at most this many seconds. It asks the API, so it needs a key of the tenant.",
        ),
    ] = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    as_json: Json = False,
) -> None:
    """Publish one message by MQTT 5 at QoS 1.

    The command ends when the broker has acknowledged the message, with --wait when the platform has stored it.

    \b
    sens publish sensor-1 --metric temperature=21.5 --metric door=true --metric firmware='"1.20"'
    sens publish sensor-1 '{"temperature": 21.5, "ts": "2026-11-24T12:00:00Z"}'
    cat message.json | sens publish sensor-1 -
    sens publish sensor-1 --metric temperature=21.5 --wait 10
    sens publish --topic application/7/device/0004a30b001c0530/event/up - < uplink.json
    """
    from sens_cli.mqtt import publish_once
    from sens_cli.target import mqtt_address
    from sens_common.command_line.output import print_json

    if topic is not None and payload is None and not metric:
        device, payload = None, device
    if (payload is None) == (not metric):
        raise typer.BadParameter("give either a payload or --metric")
    if topic is None and device is None:
        raise typer.BadParameter("name the device that the message is from, or a --topic")
    body = metrics_payload(metric) if metric else read_payload(payload or "")
    name = topic or native_topic(tenant, device or "")
    address = mqtt_address(data_dir, mqtt_url)
    seen = None
    if wait is None:
        publish_once(address, name, body)
    else:
        from sens_cli.fate import Watcher
        from sens_cli.target import find_target

        target = find_target(data_dir, api_url, api_key)
        watcher = Watcher(target, _device_of(name), body)
        watcher.start()
        publish_once(address, name, body)
        seen = watcher.wait(wait)
    if as_json:
        outcome = {} if seen is None else {"outcome": seen.fate, "dead_letter": seen.letter}
        broker = f"mqtt://{address.host}:{address.port}"
        print_json({"topic": name, "payload_bytes": len(body), "broker": broker, **outcome})
    else:
        typer.echo(f"the broker has taken {len(body)} bytes for {name}")
    if seen is not None:
        _tell(seen, wait or 0, quiet=as_json)


def _tell(seen: "Seen", seconds: float, *, quiet: bool) -> None:
    """Say what became of a message; exit with 1 when it was not stored."""
    from sens_cli.fate import Fate

    text = {
        Fate.STORED: "it is stored",
        Fate.DEAD_LETTERED: "it is a dead letter",
        Fate.UNKNOWN: f"within {seconds:g} s it was neither stored nor dead-lettered: it was stored before, it still waits (see"
        " sens status), or the key is another tenant's",
    }[seen.fate]
    if seen.letter is not None:
        text += f", number {seen.letter['id']}, {seen.letter['reason']}: {seen.letter['detail']}"
    if not quiet:
        typer.echo(text, err=seen.fate is not Fate.STORED)
    if seen.fate is not Fate.STORED:
        raise typer.Exit(1)


def native_topic(tenant: str, device: str) -> str:
    """Return the topic of a device's messages.

    Raises:
        SensError: Nothing could be stored under these names.
    """
    from sens_common.topics import NATIVE, NATIVE_PATTERN

    topic = NATIVE_PATTERN.topic(tenant, device)
    refusal = NATIVE.route(topic).refusal
    if refusal is not None:
        raise SensError(f"not sent, for it could not be stored: {refusal}")
    return topic


def _device_of(topic: str) -> str:
    """Return the device that a topic names.

    Raises:
        SensError: It names none.
    """
    from sens_common.topics import NATIVE

    route = NATIVE.route(topic)
    if route.device is None:
        raise SensError(f"not sent, for nobody could tell what becomes of it: {route.refusal}")
    return route.device


def metrics_payload(metrics: Sequence[str]) -> bytes:
    """Return the payload of ``name=value`` texts; a value that is not JSON is a text.

    Raises:
        typer.BadParameter: A text has no name.
    """
    document: dict[str, object] = {}
    for text in metrics:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"{text!r} is not of the form name=value", param_hint="--metric")
        if name in document:
            raise typer.BadParameter(f"{name} is given twice", param_hint="--metric")
        try:
            document[name] = json.loads(value, parse_constant=_not_json)
        except ValueError:
            document[name] = value
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def _not_json(text: str) -> object:
    raise ValueError(f"{text} is not JSON")  # RFC 8259 has no NaN and no infinities


def read_payload(text: str) -> bytes:
    """Return the payload that an argument says, or standard input for ``-``."""
    if text != "-":
        return text.encode("utf-8", "surrogateescape")
    body = sys.stdin.buffer.read(_LARGEST_PAYLOAD + 1)
    if len(body) > _LARGEST_PAYLOAD:
        raise SensError(f"the payload is larger than {_LARGEST_PAYLOAD:,} bytes")
    return body
