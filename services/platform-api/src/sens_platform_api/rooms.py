"""The rooms of the API. A new room is a folder with endpoints, service, repository and schemas, and one line here."""

from typing import NamedTuple

from fastapi import APIRouter

from sens_platform_api.audit.endpoints import router as audit
from sens_platform_api.calibrations.endpoints import router as calibrations
from sens_platform_api.codec_runs.endpoints import router as codec_runs
from sens_platform_api.codecs.endpoints import router as codecs
from sens_platform_api.dead_letters.endpoints import router as dead_letters
from sens_platform_api.deletions.endpoints import router as deletions
from sens_platform_api.devices.endpoints import router as devices
from sens_platform_api.erasures.endpoints import router as erasures
from sens_platform_api.imports.endpoints import router as imports
from sens_platform_api.ingest_keys.endpoints import router as ingest_keys
from sens_platform_api.live.endpoints import router as live
from sens_platform_api.measurements.endpoints import router as measurements
from sens_platform_api.operations.endpoints import router as operations
from sens_platform_api.overview.endpoints import router as overview
from sens_platform_api.presets.endpoints import router as presets
from sens_platform_api.profiles.endpoints import router as profiles
from sens_platform_api.registry.endpoints import router as registry
from sens_platform_api.retention.endpoints import router as retention
from sens_platform_api.sources.endpoints import router as sources


class Room(NamedTuple):
    """A room: its paths, and the description of its tag in the OpenAPI document, None where another room has the tag."""

    router: APIRouter
    description: str | None


ROOMS = (
    Room(devices, "Devices, and the latest value of each of their metrics."),
    Room(registry, None),
    Room(measurements, "Measurements over time."),
    Room(calibrations, "From when on values are read with a scale and an offset."),
    Room(live, "Newly stored readings, as they come."),
    Room(dead_letters, "Messages that could not be stored, and their replay."),
    Room(imports, "Histories that come in bulk."),
    Room(sources, "How other people's messages come in."),
    Room(ingest_keys, None),
    Room(presets, None),
    Room(profiles, "Kinds of devices: their codec, and what their fields are called."),
    Room(codecs, "What turns bytes of devices into values."),
    Room(codec_runs, "Decoding messages again, and comparing versions of codecs."),
    Room(deletions, "Deleting measurements of a time range, and how far deletions are."),
    Room(erasures, "Erasing what is stored of a device, with a receipt."),
    Room(retention, "How long what is kept."),
    Room(overview, "What the tenant has, and what came of its messages."),
    Room(audit, "Who changed what."),
    Room(operations, "Health, readiness, version, metrics; open."),
)
