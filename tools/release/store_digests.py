"""Looks up the digests of the images of NATS and TimescaleDB. Called by scripts/store-digests of the GitOps repository."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sens_cli.release.versions import ReleaseError
from tools.release.chart_values import Scalar, find_scalar
from tools.release.program import add_folder, parser_of, run_program
from tools.release.registry import Registry

# The GitOps repository, where this is scripts/lib/tools/release.
_ROOT: Final = Path(__file__).resolve().parents[4]
_NAME: Final = "scripts/store-digests"
_ENVIRONMENTS: Final = ("test", "production")
_DOCKER_HUB: Final = "registry-1.docker.io"


class Store(NamedTuple):
    """A store of the chart whose image is not the platform's own.

    Attributes:
        key: Its block in the values.
        folder: Where its image is at Docker Hub.
        image: The image's name there.
    """

    key: str
    folder: str
    image: str


STORES: Final = (Store("nats", "library", "nats"), Store("database", "timescale", "timescaledb"))


class Pin(NamedTuple):
    """How values name a store's image; the digest is empty when there is none."""

    tag: Scalar
    digest: Scalar


def pin(text: str, store: Store, name: str) -> Pin:
    """Find how values name a store's image.

    Raises:
        ReleaseError: They do not.
    """
    tag, digest = (find_scalar(text, store.key, "image", part) for part in ("tag", "digest"))
    if tag is None or not tag.value or digest is None:
        raise ReleaseError(
            f"{name} does not name the image of {store.key} as it is read here: it must have one {store.key}.image.tag, and one "
            f'{store.key}.image.digest, which may be "".'
        )
    return Pin(tag, digest)


def look_up(store: Store, tag: str, host: str) -> str:
    """Return the digest that a tag of a store's image stands for now.

    Raises:
        ReleaseError: There is no such tag, or it can't be known.
    """
    digest = Registry(f"{host}/{store.folder}").digest(store.image, tag)
    if digest is None:
        raise ReleaseError(f"{host}/{store.folder}/{store.image} has no tag {tag}: look for a mistake in writing.")
    return digest


def run(folder: Path, host: str, *, write: bool) -> Iterator[str]:
    """Look all of them up, and write them where that is asked for; yield a line for each.

    Raises:
        ReleaseError: A file can't be read, or a digest can't be known. Nothing was written then.
    """
    texts = {environment: _read(folder, environment) for environment in _ENVIRONMENTS}
    pins = {(name, store): pin(texts[name], store, _path(name)) for name in _ENVIRONMENTS for store in STORES}
    known = {(store, one.tag.value): "" for (_, store), one in pins.items()}
    for store, tag in known:
        known[store, tag] = look_up(store, tag, host)
    for (environment, store), one in pins.items():
        digest = known[store, one.tag.value]
        state = (
            "has it" if one.digest.value == digest else f"has {one.digest.value}" if one.digest.value else "has none"
        )
        if write and one.digest.value != digest:
            text = texts[environment]
            found = pin(text, store, _path(environment)).digest
            texts[environment] = f'{text[: found.start]}"{digest}"{text[found.end :]}'
            state = "written"
        yield f"{environment}: docker.io/{store.folder}/{store.image}:{one.tag.value} is {digest}: {state}"
    if write:
        for environment, text in texts.items():
            (folder / _path(environment)).write_text(text, encoding="utf-8", newline="\n")


def _path(environment: str) -> str:
    return f"environments/{environment}/values.yaml"


def _read(folder: Path, environment: str) -> str:
    file = folder / _path(environment)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{file} can't be read: {error}. Is this the GitOps repository?") from error


def main(arguments: Sequence[str]) -> int:
    """Print what was found; return 1 when it is refused."""
    parser = parser_of(
        _NAME, "Looks up the digests of the tags of NATS and TimescaleDB that environments/*/values.yaml name."
    )
    parser.add_argument("--write", action="store_true", help="write them beside their tags")
    parser.add_argument("--host", default=_DOCKER_HUB, help="a mirror of Docker Hub to ask instead of %(default)s")
    add_folder(parser, _ROOT, "the one this is in")
    options = parser.parse_args(arguments)
    return run_program(_NAME, lambda: run(options.folder, options.host, write=options.write))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
