"""The services whose settings and metrics are listed."""

import importlib
import importlib.util
from types import ModuleType
from typing import Final

SERVICES: Final = {
    "platform-api": "sens_platform_api",
    "mqtt-ingestion-worker": "sens_mqtt_ingestion_worker",
    "telemetry-worker": "sens_telemetry_worker",
    "mock-mqtt-broker": "sens_mock_mqtt_broker",
    "docs-site": "sens_docs_site",
}


def module_of(package: str, name: str) -> ModuleType | None:
    """Return a service's module, None when it has none of that name."""
    if importlib.util.find_spec(f"{package}.{name}") is None:
        return None
    return importlib.import_module(f"{package}.{name}")
