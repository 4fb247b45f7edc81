"""The images: what each one holds, and what it takes to try it without the rest of the platform."""

from collections.abc import Mapping
from typing import Final, NamedTuple


class Image(NamedTuple):
    """An image of the product.

    Attributes:
        name: What people call it, and what the Dockerfile's ARG SERVICE takes.
        folder: Its service below ``services``; its lock has the same name.
        port_setting: The variable that sets the port of ``/version``.
        ports: Further variables of ports it listens on.
        trial: Settings for a trial without the rest of the platform.
        writable: Folders that it writes to; everything else may be read-only.
    """

    name: str
    folder: str
    port_setting: str
    ports: tuple[str, ...] = ()
    trial: Mapping[str, str] = {}
    writable: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, str]:
        """Return the import packages of this repository that it holds."""
        return "sens_common", "sens_" + self.folder.replace("-", "_")


# Where nothing listens: a trial must not reach what happens to run on the same machine.
_NO_NATS: Final = {"SENS_NATS__URL": "nats://127.0.0.1:1"}
_NO_DATABASE: Final = {"SENS_DATABASE__PORT": "1"}
_NO_MQTT: Final = {"SENS_MQTT__URL": "mqtt://127.0.0.1:1"}

IMAGES: Final = (
    Image("platform-api", "platform-api", "SENS_HTTP__PORT", trial=_NO_NATS | _NO_DATABASE),
    Image("mqtt-ingestion-worker", "mqtt-ingestion-worker", "SENS_OPERATIONS__PORT", trial=_NO_NATS | _NO_MQTT),
    Image("telemetry-worker", "telemetry-worker", "SENS_OPERATIONS__PORT", trial=_NO_NATS | _NO_DATABASE),
    Image(
        "mock-mqtt-broker",
        "mock-mqtt-broker",
        "SENS_OPERATIONS__PORT",
        ports=("SENS_BROKER__PORT", "SENS_BROKER__PORT_V5"),
        writable=("/tmp",),  # noqa: S108 - inside of the image: the broker's configuration file
    ),
    Image("docs", "docs-site", "SENS_HTTP__PORT"),
)

# What no image may hold, whatever its base brings: an upgrade is another image, not an installation.
PACKAGING_TOOLS: Final = frozenset({"ensurepip", "hatchling", "pip", "setuptools", "uv", "wheel", "zensical"})
