"""What is published in a registry of images: digests, labels and platforms.

Manifests, indexes and configurations are those of the OCI image specification 1.1, and Docker's of the same form.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from typing import Final, NamedTuple, Self

from sens_cli.release.versions import ReleaseError
from tools.release.http import MAXIMUM_BYTES, TIMEOUT_SECONDS
from tools.release.program import parsed
from tools.release.registry_http import Credentials, Transport

REVISION: Final = "org.opencontainers.image.revision"
"""The label with the full commit that an image was built from."""

_INDEX: Final = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
_HOST: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_ADDRESS = re.compile(rf"({_HOST})((?:/{_COMPONENT})*)/?")
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAXIMUM_LENGTH: Final = 255
_MAXIMUM_PLATFORMS: Final = 50


def host_of(address: str) -> str:
    """Return the host, and the port where there is one, of an address such as ``ghcr.io/owner/sens-platform``."""
    return address.partition("/")[0]


class PublishedImage(NamedTuple):
    """An image that is in the registry.

    Attributes:
        digest: Of the manifest or index that the tag names, ``sha256:…``.
        labels: Of its configuration; the same for each platform.
        platforms: ``linux/amd64`` and the like, in the index's order.
    """

    digest: str
    labels: Mapping[str, str]
    platforms: tuple[str, ...]


class _Manifest(NamedTuple):
    digest: str
    media_type: str
    body: bytes
    document: Mapping[str, object]


class Registry:
    """A folder of images in a registry.

    Args:
        address: Host and folder, such as ``ghcr.io/owner/sens-platform``; https, except on this machine.
        credentials: What to log in with; None reads what everybody may read.
        timeout_seconds: How long an answer may take.

    Raises:
        ReleaseError: The address is none.
    """

    def __init__(
        self, address: str, credentials: Credentials | None = None, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        match = _ADDRESS.fullmatch(address)
        if match is None or len(address) > _MAXIMUM_LENGTH:
            raise ReleaseError(
                f"{address[:_MAXIMUM_LENGTH]!r} is not an address of images: write host and folder in small letters, without https://, "
                "such as ghcr.io/owner/sens-platform."
            )
        self.address: Final = address.rstrip("/")
        self._folder = match[2].strip("/")
        self._transport = Transport(match[1], credentials, timeout_seconds)

    @classmethod
    def logged_in(cls, address: str, environment: Mapping[str, str] = os.environ) -> Self:
        """Open the registry with the login that the environment has for it, if any.

        Raises:
            ReleaseError: The address is none, or half of a login is there.
        """
        return cls(address, Credentials.from_environment(host_of(address), environment))

    def repository(self, image: str) -> str:
        """Return the full name of an image, ``ghcr.io/owner/sens-platform/platform-api``."""
        return f"{self.address}/{image}"

    def digest(self, image: str, tag: str) -> str | None:
        """Return the digest that a tag stands for, None when it is not there.

        Raises:
            ReleaseError: It can't be known.
        """
        found = self._manifest(image, tag)
        return found.digest if found else None

    def labels(self, image: str, tag: str) -> Mapping[str, str]:
        """Return the labels of an image.

        Args:
            image: Its name below the folder.
            tag: Its tag or digest.

        Raises:
            ReleaseError: It is not there, its platforms have different labels, or it can't be known.
        """
        found = self.find(image, tag)
        if found is None:
            raise ReleaseError(
                f"{self.repository(image)} has no {tag}: publish it first, or look for a mistake in writing."
            )
        return found.labels

    def find(self, image: str, tag: str) -> PublishedImage | None:
        """Return what a tag or digest stands for, None when it is not there.

        Raises:
            ReleaseError: Its platforms have different labels, or it can't be known.
        """
        found = self._manifest(image, tag)
        if found is None:
            return None
        where = f"{self.repository(image)}@{found.digest}"
        manifests = [found.document]
        if "manifests" in found.document:
            manifests = [self._part(image, digest) for digest in _platforms(found.document, where)]
        configurations = [self._configuration(image, manifest, where) for manifest in manifests]
        labels = [_labels(configuration, where) for configuration in configurations]
        if any(one != labels[0] for one in labels):
            raise ReleaseError(
                f"The platforms of {where} have different labels, so they were not built from the same commit in one build: "
                "publish another version."
            )
        names = tuple(f"{one.get('os', 'unknown')}/{one.get('architecture', 'unknown')}" for one in configurations)
        return PublishedImage(found.digest, labels[0], names)

    def tag(self, image: str, digest: str, tag: str) -> None:
        """Give an image that is in the registry a tag, unless the tag stands for another one: a published tag is not moved.

        The protocol has no way to write a tag on the condition that it is not there. So this looks directly before and after;
        that two at the same moment both find it missing is told to the one that lost.

        Args:
            image: Its name below the folder.
            digest: Of its manifest or index.
            tag: Its tag.

        Raises:
            ReleaseError: The tag stands for another image, or the image is not there.
        """
        name = f"{self.repository(image)}:{tag}"
        standing = self.digest(image, tag)
        if standing == digest:
            return
        if standing is not None:
            raise ReleaseError(f"{name} is published as {standing}, and a published tag is never moved to {digest}.")
        found = self._manifest(image, digest)
        if found is None:
            raise ReleaseError(f"{self.repository(image)}@{digest} is not in the registry: build and push it first.")
        self._transport.put(self._name(image), f"manifests/{tag}", found.media_type, found.body)
        standing = self.digest(image, tag)
        if standing != digest:
            raise ReleaseError(
                f"{name} was to become {digest} and stands for {standing or 'nothing'}: somebody else published it at the same "
                "moment. Publish another version."
            )

    def _part(self, image: str, digest: str) -> Mapping[str, object]:
        found = self._manifest(image, digest)
        if found is None or "manifests" in found.document:
            raise ReleaseError(
                f"{self.repository(image)}@{digest}, a platform of an image, is not there or no manifest: "
                "the registry has lost it. Publish another version."
            )
        return found.document

    def _manifest(self, image: str, reference: str) -> _Manifest | None:
        if not _NAME.fullmatch(image):
            raise ReleaseError(
                f"{image[:_MAXIMUM_LENGTH]!r} is not a name of an image: small letters, digits, and . _ - between them."
            )
        if not _TAG.fullmatch(reference) and not _DIGEST.fullmatch(reference):
            raise ReleaseError(
                f"{reference[:_MAXIMUM_LENGTH]!r} is neither a tag nor a digest (sha256: and 64 hexadecimal digits)."
            )
        where = f"{self.repository(image)} {reference}"
        answer = self._transport.get(self._name(image), f"manifests/{reference}", _INDEX)
        if answer is None:
            return None
        digest = f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
        claimed = reference if ":" in reference else answer.headers.get("docker-content-digest", digest)
        if claimed != digest:
            raise ReleaseError(
                f"What the registry answered for {where} has the digest {digest}, not {claimed}: "
                "it was changed on its way, or the registry is broken. Use nothing of it; look at the connection first."
            )
        document = _object(answer.body, where)
        # Both at once mean different things to different programs (section "Guidelines" of the image specification's index).
        if ("manifests" in document) == ("config" in document):
            raise ReleaseError(f"{where} is not an image that can be read here: neither a manifest nor an index alone.")
        # The document's own field says it where it has one; a registry repeats what was pushed.
        media_type = document.get("mediaType") or answer.headers.get("content-type") or ""
        return _Manifest(digest, str(media_type), answer.body, document)

    def _configuration(self, image: str, manifest: Mapping[str, object], where: str) -> Mapping[str, object]:
        digest = _digest(manifest.get("config"), where)
        answer = self._transport.get(self._name(image), f"blobs/{digest}", "*/*")
        if answer is None or f"sha256:{hashlib.sha256(answer.body).hexdigest()}" != digest:
            raise ReleaseError(
                f"The configuration {digest} of {where} is not in the registry, or is damaged: publish another version."
            )
        return _object(answer.body, f"the configuration of {where}")

    def _name(self, image: str) -> str:
        return f"{self._folder}/{image}" if self._folder else image


def _platforms(index: Mapping[str, object], where: str) -> list[str]:
    """Return the digests of an index's images, without the attestations that BuildKit stores among them.

    Their form: docs.docker.com/build/metadata/attestations/attestation-storage.
    """
    entries = index["manifests"]
    if not isinstance(entries, list) or len(entries) > _MAXIMUM_PLATFORMS:
        raise ReleaseError(f"The index {where} has no list of at most {_MAXIMUM_PLATFORMS} manifests.")
    digests = [_digest(entry, where) for entry in entries if not _is_attestation(entry)]
    if not digests:
        raise ReleaseError(f"The index {where} has no image in it: publish another version.")
    return digests


def _is_attestation(entry: object) -> bool:
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    return isinstance(annotations, dict) and annotations.get("vnd.docker.reference.type") == "attestation-manifest"


def _digest(descriptor: object, where: str) -> str:
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ReleaseError(f"{where} refers to something by {digest!r}, which is not a sha256 digest.")
    return digest


def _labels(configuration: Mapping[str, object], where: str) -> Mapping[str, str]:
    config = configuration.get("config")
    labels = config.get("Labels") if isinstance(config, dict) else None
    if labels is None:
        return {}
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise ReleaseError(f"The labels of {where} are not texts by name.")
    return labels


def _object(body: bytes, where: str) -> Mapping[str, object]:
    document = parsed(body, MAXIMUM_BYTES)
    if not isinstance(document, dict):
        raise ReleaseError(f"{where} is not a JSON object: is this a registry of images?")
    return document
