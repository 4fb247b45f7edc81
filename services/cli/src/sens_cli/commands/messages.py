"""``sens publish``: a message in."""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from sens_cli.options import MQTT_URL_VARIABLE, DataDir, Json
from sens_common.errors import InvalidTopicError, SensError

_LARGEST_PAYLOAD: Final = 8_000_000


def publish(  # noqa: PLR0917 - typer calls it with keywords
    data_dir: DataDir,
    device: Annotated[str, typer.Argument(help="Device that the message is from.", show_default=False)],
    payload: Annotated[
        str | None, typer.Argument(help="Payload as it is; - reads it from standard input.", show_default=False)
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric", "-m", help="name=value, instead of a payload; may be repeated. The value is JSON, else a text."
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
    as_json: Json = False,
) -> None:
    """Publish one message by MQTT 5 at QoS 1; done when the broker has taken it.

    \b
    sens publish sensor-1 --metric temperature=21.5 --metric door=true --metric firmware='"1.20"'
    sens publish sensor-1 '{"temperature": 21.5, "ts": "2026-11-24T12:00:00Z"}'
    cat message.json | sens publish sensor-1 -
    """
    from sens_cli.mqtt import publish_once
    from sens_cli.output import print_json
    from sens_cli.target import mqtt_address

    if (payload is None) == (not metric):
        raise typer.BadParameter("give either a payload or --metric")
    body = metrics_payload(metric) if metric else read_payload(payload or "")
    name = topic or native_topic(tenant, device)
    address = mqtt_address(data_dir, mqtt_url)
    publish_once(address, name, body)
    if as_json:
        print_json({"topic": name, "payload_bytes": len(body), "broker": f"mqtt://{address.host}:{address.port}"})
    else:
        typer.echo(f"the broker has taken {len(body)} bytes for {name}")


def native_topic(tenant: str, device: str) -> str:
    """Return the topic of a device's messages.

    Raises:
        SensError: Nothing could be stored under these names.
    """
    from sens_common.names import NATIVE_TOPIC, parse_native_topic

    topic = NATIVE_TOPIC.format(tenant=tenant, device=device)
    try:
        parse_native_topic(topic)
    except InvalidTopicError as error:
        raise SensError(f"not sent, for it could not be stored: {error.detail}") from error
    return topic


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
