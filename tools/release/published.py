"""Whether the images of a release are in the registry, and were built from its commit."""

from collections.abc import Mapping
from typing import Protocol

from sens_cli.release.record import IMAGES, Release
from sens_cli.release.versions import ReleaseError
from tools.release.registry import REVISION


class PublishedImages(Protocol):
    """A registry with images."""

    def digest(self, image: str, tag: str) -> str | None: ...
    def labels(self, image: str, reference: str) -> Mapping[str, str]: ...


def check_published(
    published: PublishedImages, release: Release, wanted: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the digest of each image of a release.

    Args:
        published: The registry.
        release: Version and commit.
        wanted: The digest that each image has to have, where it is known.

    Raises:
        ReleaseError: An image is missing, has another digest, or was built from another commit; the text names each.
    """
    tag = str(release.version)
    found = {image: published.digest(image, tag) for image in IMAGES}
    digests = {image: digest for image, digest in found.items() if digest is not None}
    if missing := [image for image in IMAGES if image not in digests]:
        raise ReleaseError(
            f"These images are not published with the tag {tag}: {', '.join(missing)}. Publish {tag} from the commit "
            f"{release.product_commit} (workflow publish-images, with ref and release_version), then run this again."
        )
    moved = [
        f"{image} has {digests[image]} instead of {wanted[image]}"
        for image in IMAGES
        if wanted is not None and digests[image] != wanted[image]
    ]
    if moved:
        raise ReleaseError(
            f"In the registry {'; '.join(moved)} with the tag {tag}. A published tag never moves: find out who pushed it, "
            "and publish a new version."
        )
    # By digest: that is what will run, whatever happens to the tag meanwhile.
    revisions = {image: published.labels(image, digest).get(REVISION) for image, digest in digests.items()}
    foreign = [
        f"{image} from {(revision or 'a commit that it does not name')[:100]!r}"
        for image, revision in revisions.items()
        if revision != release.product_commit
    ]
    if foreign:
        raise ReleaseError(
            f"{tag} was not built from the commit {release.product_commit}, but {', '.join(foreign)}. Publish a version "
            "from that commit, or deploy the one of the other commit to test first."
        )
    return digests
