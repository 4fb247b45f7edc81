"""The record of a release in an environment (``release.json``), and the chart's values that follow from it.

Both are written whole by machines. What a record says is checked when it is made and when it is read, so that nothing
later has to doubt a version, a commit, a digest or an address.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast

from sens_cli.release.versions import ReleaseError, Version

IMAGES: Final = (
    "docs",
    "http-ingestion-worker",
    "mock-mqtt-broker",
    "mqtt-ingestion-worker",
    "platform-api",
    "telemetry-worker",
)
"""The images of every release, as the chart's ``images.digests`` names them."""

MAXIMUM_BYTES: Final = 64 * 1024

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Host with an optional port, then path components: the name of the OCI distribution specification (v1.1).
_REPOSITORY = re.compile(
    r"[a-zA-Z0-9](?:[a-zA-Z0-9.-]{0,253})(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*){1,8}"
)
_RUN = re.compile(r"https?://[A-Za-z0-9.:-]{1,255}/[A-Za-z0-9._~/-]{0,512}")
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class PinnedImage:
    """Where an image is, by content.

    Attributes:
        repository: ``ghcr.io/owner/sens-platform/platform-api``.
        digest: ``sha256:`` and 64 digits.
    """

    repository: str
    digest: str


@dataclass(frozen=True, slots=True)
class Release:
    """A version and the commit it was built from."""

    version: Version
    product_commit: str

    def __post_init__(self) -> None:
        check_commit(self.product_commit)


@dataclass(frozen=True, slots=True)
class Record:
    """What is released in an environment.

    Attributes:
        release: Version and commit.
        images: Each of ``IMAGES``.
        released_at: When it was written, in UTC and whole seconds.
        run: Address of the run that wrote it, if one did.
        previous: What it replaced, if anything.
    """

    release: Release
    images: Mapping[str, PinnedImage]
    released_at: datetime
    run: str | None = None
    previous: Release | None = None

    def __post_init__(self) -> None:
        _ = self.release.version.channel
        check_images(self.images)
        for name, image in self.images.items():
            check_digest(image.digest, f"of {name}")
            if not _REPOSITORY.fullmatch(image.repository):
                raise ReleaseError(
                    f"{image.repository[:100]!r} is not a repository of an image, such as ghcr.io/owner/{name}."
                )
        if self.run is not None and not _RUN.fullmatch(self.run):
            raise ReleaseError(f"{self.run[:100]!r} is not an address of a run: give an https address without a query.")

    def same_release(self, other: "Record | None") -> bool:
        """Tell whether another record is of the same version, commit and images."""
        return other is not None and (self.release, self.images) == (other.release, other.images)


def check_commit(text: str) -> None:
    """See that a text is a full commit.

    Raises:
        ReleaseError: It is not.
    """
    if not _COMMIT.fullmatch(text):
        raise ReleaseError(
            f"{text[:100]!r} is not a full commit: give the 40 lower-case hexadecimal digits that 'git rev-parse' prints."
        )


def check_digest(text: str, what: str) -> None:
    """See that a text is a digest.

    Raises:
        ReleaseError: It is not.
    """
    if not _DIGEST.fullmatch(text):
        raise ReleaseError(
            f"The digest {what} is {text[:100]!r}: it must be sha256: and 64 lower-case hexadecimal digits."
        )


def check_images(names: Iterable[str]) -> None:
    """See that these are the images of a release, all of them and no other.

    Raises:
        ReleaseError: One is missing or unknown; the text names each.
    """
    missing, unknown = sorted(set(IMAGES) - set(names)), sorted(set(names) - set(IMAGES))
    if missing:
        raise ReleaseError(f"The digests of these images are missing: {', '.join(missing)}.")
    if unknown:
        shown = ", ".join(repr(name[:100]) for name in unknown[:10])
        raise ReleaseError(f"There are no such images: {shown}. The images are {', '.join(IMAGES)}.")


def now() -> datetime:
    """Return the time for a record made now."""
    return datetime.now(UTC).replace(microsecond=0)


def dump(record: Record) -> str:
    """Return the text of ``release.json``: sorted keys, two spaces, a line break at the end."""
    document = {
        "version": str(record.release.version),
        "channel": record.release.version.channel,
        "product_commit": record.release.product_commit,
        "images": {
            name: {"repository": image.repository, "digest": image.digest} for name, image in record.images.items()
        },
        "released_at": record.released_at.strftime(_TIME),
        "run": record.run,
        "previous": None
        if record.previous is None
        else {"version": str(record.previous.version), "product_commit": record.previous.product_commit},
    }
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def values(record: Record) -> str:
    """Return the values of the chart that follow from a record, as YAML: one JSON scalar a line."""
    lines = [
        "images:",
        f'  tag: "{record.release.version}"',
        f'  channel: "{record.release.version.channel}"',
        "  digests:",
        *(f'    {name}: "{record.images[name].digest}"' for name in sorted(record.images)),
    ]
    return "\n".join(lines) + "\n"


def parse(text: str, name: str) -> Record:
    """Read a record.

    Args:
        text: The content of ``release.json``.
        name: What errors call the file.

    Raises:
        ReleaseError: It is not a record; the text names the file and the key.
    """
    return _read(text, name, _record)


def parse_released(text: str, name: str) -> tuple[Release, Mapping[str, PinnedImage]]:
    """Read what a record says is released, whatever images the product had when it was written; otherwise as `parse`."""
    return _read(text, name, _released)


def _read[T](text: str, name: str, make: Callable[[dict[str, object], str], T]) -> T:
    if len(text.encode()) > MAXIMUM_BYTES:
        raise ReleaseError(f"{name} is longer than {MAXIMUM_BYTES} bytes: it is not a record of a release.")
    try:
        return make(_object(json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant), name), name)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(
            f"{name} is not JSON: {str(error)[:200]}. Restore it from the history: git log -- {name}"
        ) from None
    except ReleaseError as error:
        if str(error).startswith(name):
            raise
        raise ReleaseError(f"{name} is broken: {error}") from None


def parse_digests(text: str) -> dict[str, str]:
    """Read digests that were handed over: a JSON object of each image's digest.

    Raises:
        ReleaseError: It is not one, an image is missing or unknown, or a digest can't be one.
    """
    name = "The digests"
    if len(text.encode(errors="replace")) > MAXIMUM_BYTES:
        raise ReleaseError(f"{name} are longer than {MAXIMUM_BYTES} bytes.")
    try:
        document = _object(json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant), name)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(
            f'{name} are not JSON ({str(error)[:200]}): give an object such as {{"platform-api": "sha256:…", …}}.'
        ) from None
    check_images(document)
    digests = {image: _text(document, image, name) for image in document}
    for image, digest in digests.items():
        check_digest(digest, f"of {image}")
    return digests


def _released(document: dict[str, object], name: str) -> tuple[Release, dict[str, PinnedImage]]:
    _keys(document, {"version", "channel", "product_commit", "images", "released_at", "run", "previous"}, name)
    version = Version.parse(_text(document, "version", name))
    if document["channel"] != version.channel:
        raise ReleaseError(f"{name}: channel is not {version.channel}, the channel of {version}.")
    images: dict[str, PinnedImage] = {}
    for image, value in _object(document["images"], f"{name}: images").items():
        where = f"{name}: images.{image[:100]!r}"
        entry = _object(value, where)
        _keys(entry, {"repository", "digest"}, where)
        images[image] = PinnedImage(_text(entry, "repository", where), _text(entry, "digest", where))
        check_digest(images[image].digest, f"of {image[:100]}")
    return Release(version, _text(document, "product_commit", name)), images


def _record(document: dict[str, object], name: str) -> Record:
    release, images = _released(document, name)
    previous = document["previous"]
    if previous is not None:
        where = f"{name}: previous"
        previous = _object(previous, where)
        _keys(previous, {"version", "product_commit"}, where)
    return Record(
        release=release,
        images=images,
        released_at=_time(_text(document, "released_at", name), name),
        run=None if document["run"] is None else _text(document, "run", name),
        previous=None
        if previous is None
        else Release(Version.parse(_text(previous, "version", name)), _text(previous, "product_commit", name)),
    )


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ReleaseError(f"{where}: it must be an object.")
    return cast("dict[str, object]", value)


def _keys(document: Mapping[str, object], wanted: set[str], where: str) -> None:
    if missing := sorted(wanted - set(document)):
        raise ReleaseError(f"{where}: {', '.join(missing)} is missing.")
    if unknown := sorted(set(document) - wanted):
        raise ReleaseError(
            f"{where}: {unknown[0][:100]!r} is not a key of it; the keys are {', '.join(sorted(wanted))}."
        )


def _text(document: Mapping[str, object], key: str, where: str) -> str:
    value = document[key]
    if not isinstance(value, str):
        raise ReleaseError(f"{where}: {key} must be a text.")
    return value


def _time(text: str, where: str) -> datetime:
    try:
        time = datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        time = None
    if time is None or time.strftime(_TIME) != text:
        raise ReleaseError(f"{where}: released_at is {text[:100]!r}, and must be such as 2026-01-31T12:00:00Z.")
    return time


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key is there twice")
    return document


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")
