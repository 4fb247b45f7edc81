"""Builds an image for several platforms and pushes it without a tag, with docker's buildx."""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.images.builders import Build, build_options, run_program
from tools.images.source import ImageError

# docs.docker.com/build/exporters/image-registry: nothing but the digest names what is pushed. Times are those of the commit.
_OUTPUT: Final = (
    "type=image,push=true,push-by-digest=true,name-canonical=true,oci-mediatypes=true,rewrite-timestamp=true"
)


def push_without_tag(build: Build, platforms: Sequence[str]) -> str:
    """Build an image, for this machine's platform when none is named, and push it; return the digest of its index.

    What lists its contents (SBOM) and tells how it was built (provenance) is stored in the index, so that the digest holds
    for these too.

    Raises:
        ImageError: docker's buildx is missing, or the image can't be built or pushed.
    """
    started = time.monotonic()
    repository = build.reference.rpartition(":")[0]
    with tempfile.TemporaryDirectory(prefix="sens-push-") as folder:
        metadata = Path(folder) / "metadata.json"
        command = ["docker", "buildx", "build", "--sbom=true", "--provenance=mode=max", f"--output={_OUTPUT}"]
        command += [f"--metadata-file={metadata}", "--progress=plain"]
        command += [f"--platform={','.join(platforms)}"] if platforms else []
        run_program([*command, *build_options(build._replace(reference=repository))])
        digest = json.loads(metadata.read_text(encoding="utf-8")).get("containerimage.digest")
    if not isinstance(digest, str):
        raise ImageError(f"docker buildx told no digest for {repository}: is it older than 0.8?")
    print(f"{repository}@{digest}: built and pushed in {time.monotonic() - started:.0f} s", flush=True)
    return digest
