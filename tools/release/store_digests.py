"""Looks up the digests of the images of NATS and TimescaleDB. Called by scripts/store-digests of the GitOps repository."""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sens_cli.release.versions import ReleaseError
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
    """What values say about a store's image.

    Attributes:
        match: Where it is in the text.
        tag: Its tag.
        digest: Its digest; empty when there is none.
    """

    match: re.Match[str]
    tag: str
    digest: str


def pin(text: str, store: Store, name: str) -> Pin:
    """Find what values say about a store's image.

    Raises:
        ReleaseError: It is not there in the form that ``scripts/gitops-init`` writes.
    """
    shape = rf'^{store.key}:\n  image:\n    tag: "?(?P<tag>[^"\s#]+)"?\n    digest: "(?P<digest>[^"\n]*)"$'
    found = list(re.finditer(shape, text, re.MULTILINE))
    if len(found) != 1:
        raise ReleaseError(
            f"{name} does not name the image of {store.key} as it is read here: '{store.key}:', 'image:', 'tag: …' and "
            "'digest: \"…\"' on lines of their own, each two spaces further in than the one before (the last two alike)."
        )
    return Pin(found[0], found[0]["tag"], found[0]["digest"])


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
    known = {(store, one.tag): "" for (_, store), one in pins.items()}
    for store, tag in known:
        known[store, tag] = look_up(store, tag, host)
    for (environment, store), one in pins.items():
        digest = known[store, one.tag]
        state = "has it" if one.digest == digest else f"has {one.digest}" if one.digest else "has none"
        if write and one.digest != digest:
            found = pin(texts[environment], store, _path(environment)).match
            text = texts[environment]
            texts[environment] = f"{text[: found.start('digest')]}{digest}{text[found.end('digest') :]}"
            state = "written"
        yield f"{environment}: docker.io/{store.folder}/{store.image}:{one.tag} is {digest}: {state}"
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
