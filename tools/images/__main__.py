"""Builds the images and tries each one: ``python -m tools.images``. Called by scripts/build-images; needs Python alone."""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tools.images.base import ensure_debian_base
from tools.images.builders import Build, Builder, find_builder
from tools.images.catalogue import IMAGES, Image
from tools.images.contents import check_reproducible
from tools.images.package_index import secrets
from tools.images.publication import push_without_tag
from tools.images.smoke import try_image
from tools.images.source import Commit, ImageError, checked_version


class Options(argparse.Namespace):
    """The command line."""

    version: str | None
    image: list[str] | None
    prefix: str
    base: str | None
    debian_base: bool
    builder: str | None
    storage: Path | None
    source: str | None
    commit: str
    trial: bool
    push_digests: Path | None
    platform: list[str] | None
    check_reproducible: bool


def parse(arguments: Sequence[str]) -> Options:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = argparse.ArgumentParser(
        prog="scripts/build-images",
        description="Builds every image from a commit with docker, podman or buildah, and tries each one.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", help="tag of the images, SemVer without '+'; the product's version by default")
    parser.add_argument(
        "--image", action="append", choices=[image.name for image in IMAGES], help="only this one; can be repeated"
    )
    parser.add_argument(
        "--prefix", default="localhost", help="registry and folder before the names; localhost by default"
    )
    base = parser.add_mutually_exclusive_group()
    base.add_argument(
        "--base", help="base instead of the Dockerfile's: an image with Python 3.12 or newer, best with its digest"
    )
    base.add_argument(
        "--debian-base",
        action="store_true",
        help="make a base by debootstrap, where no registry can be reached (as root)",
    )
    parser.add_argument(
        "--builder", choices=["docker", "podman", "buildah"], help="instead of the first one that works"
    )
    parser.add_argument("--storage", type=Path, help="folder for buildah's images instead of the machine's own")
    parser.add_argument(
        "--source", help="https address of the repository, for the images' labels; by default that of origin"
    )
    parser.add_argument("--commit", default="HEAD", help="commit to build; the newest one by default")
    parser.add_argument("--no-trial", dest="trial", action="store_false", help="only build")
    parser.add_argument(
        "--push-digests",
        type=Path,
        metavar="FILE",
        help="push with 'docker buildx' without a tag instead of trying, with SBOM and provenance; the digests go into the file",
    )
    parser.add_argument("--platform", action="append", help="for --push-digests, such as linux/arm64; can be repeated")
    parser.add_argument(
        "--check-reproducible",
        action="store_true",
        help="build each one a second time from nothing, and fail when a file is not the same",
    )
    options = parser.parse_args(arguments, Options())
    if options.platform and not options.push_digests:
        parser.error("--platform is for --push-digests: images for other machines can't be tried on this one")
    if options.check_reproducible and options.push_digests:
        parser.error("--check-reproducible compares images that are here: it can't be used with --push-digests")
    try:
        checked_version(options.version or "0.0.0")
    except ImageError as error:
        parser.error(str(error))
    return options


def build_all(options: Options, builder: Builder, commit: Commit) -> None:
    """Build and try the images that the options ask for.

    Raises:
        ImageError: One can't be built, or does not work.
    """
    base = options.base
    if options.debian_base:
        started = time.monotonic()
        base = ensure_debian_base(builder)
        print(f"{base} made or found in {time.monotonic() - started:.0f} s", flush=True)
    with tempfile.TemporaryDirectory(prefix="sens-images-") as folder:
        context, private = Path(folder) / "context", Path(folder) / "secrets"
        context.mkdir()
        private.mkdir(mode=0o700)
        commit.unpack(context)
        base = base or declared_base((context / "Dockerfile").read_text(encoding="utf-8"))
        files = secrets(private)
        digests = {}
        for image in IMAGES:
            if options.image is None or image.name in options.image:
                build = build_of(
                    image, commit, version=options.version or commit.product_version, prefix=options.prefix, base=base
                )
                build = build._replace(context=context, secrets=files)
                if options.push_digests:
                    digests[image.name] = push_without_tag(build, options.platform or [])
                    continue
                _build(builder, image, build, commit, trial=options.trial)
                if options.check_reproducible:
                    count = check_reproducible(builder, build)
                    print(f"{build.reference}: built twice, the same {count} files", flush=True)
    if options.push_digests:
        options.push_digests.write_text(json.dumps(digests) + "\n", encoding="utf-8")


def declared_base(dockerfile: str) -> str | None:
    """Return the image that the Dockerfile's own base is; older ones name it in an argument, and give None.

    It is handed over as an argument: buildah before 1.29 finds no stage that an argument names.
    """
    found = re.search(r"^FROM (\S+) AS base$", dockerfile, re.MULTILINE)
    return found[1] if found else None


def build_of(image: Image, commit: Commit, *, version: str, prefix: str, base: str | None) -> Build:
    """Return the build of an image, still without its context and secrets."""
    arguments = {
        "SERVICE": image.name,
        "VERSION": version,
        "REVISION": commit.revision,
        "SOURCE": commit.source,
        "CREATED": commit.created,
        "SOURCE_DATE_EPOCH": str(commit.epoch),
    }
    if base is not None:
        arguments["BASE"] = base
    return Build(
        context=Path(),
        target=image.name,
        reference=f"{prefix}/{image.name}:{version}",
        arguments=arguments,
        secrets={},
        epoch=commit.epoch,
    )


def _build(builder: Builder, image: Image, build: Build, commit: Commit, *, trial: bool) -> None:
    started = time.monotonic()
    builder.build(build)
    seconds = time.monotonic() - started
    size = builder.size_bytes(build.reference) / 1e6
    line = f"{build.reference}: built in {seconds:.0f} s, {size:.0f} MB"
    if trial:
        line += f"; answered /version after {try_image(builder, image, build.reference, commit):.1f} s and stopped on SIGTERM"
    print(line, flush=True)


def main() -> int:
    """Build; return the exit code."""
    options = parse(sys.argv[1:])
    try:
        commit = Commit.read(options.source, options.commit)
        if commit.modified and options.commit == "HEAD":
            print("Note: changes that are not committed are not in the images.", file=sys.stderr)
        builder = find_builder(options.builder, options.storage)
        print(f"building {commit.revision} with {builder.name}", flush=True)
        build_all(options, builder, commit)
    except ImageError as error:
        print(f"scripts/build-images: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
