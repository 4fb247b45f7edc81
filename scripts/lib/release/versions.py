"""Versions of releases: SemVer 2.0 (semver.org) without build metadata, their channels, and which version may follow which.

The root version in ``pyproject.toml`` is always stable (``0.5.0``). What is published is a tag:
``0.5.0-alpha.<run number>.<run attempt>`` for test, ``0.5.0-rc.1`` for staging, ``0.5.0`` for production.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import total_ordering
from typing import Final, Self

# The longest tag that the OCI distribution specification allows (v1.1, "Pulling manifests").
MAXIMUM_LENGTH: Final = 128

_NUMBER = r"(?:0|[1-9][0-9]*)"
_IDENTIFIER = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(rf"({_NUMBER})\.({_NUMBER})\.({_NUMBER})(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?")
_SHA = re.compile(r"(?:git-|sha-)?[0-9a-f]{7,64}", re.IGNORECASE)
_EXAMPLES: Final = "such as 0.5.0-alpha.123.1, 0.5.0-rc.1 or 0.5.0"


class ReleaseError(Exception):
    """A step of a release is refused; the text says why and what would be allowed."""


class Channel(StrEnum):
    """How far a version has come."""

    ALPHA = "alpha"
    RC = "rc"
    STABLE = "stable"


# Which channel an environment takes, and nothing else.
ENVIRONMENTS: Final = {"test": Channel.ALPHA, "staging": Channel.RC, "production": Channel.STABLE}
_SHAPES: Final = {
    Channel.ALPHA: re.compile(rf"alpha\.{_NUMBER}(?:\.{_NUMBER})?"),
    Channel.RC: re.compile(rf"rc\.{_NUMBER}"),
}


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A version; compares by SemVer's precedence (section 11).

    Attributes:
        major: Changes that break what others rely on.
        minor: Additions.
        patch: Repairs.
        pre_release: What follows the hyphen, split at the dots; empty for a stable version.
    """

    major: int
    minor: int
    patch: int
    pre_release: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a version that can be an image's tag.

        Raises:
            ReleaseError: It is not one; names that move and commits get a text of their own.
        """
        if len(text) > MAXIMUM_LENGTH:
            raise ReleaseError(f"A version of {len(text)} characters can't be a tag: {MAXIMUM_LENGTH} are allowed.")
        if match := _SEMVER.fullmatch(text):
            major, minor, patch, pre_release = match.groups()
            return cls(int(major), int(minor), int(patch), tuple(pre_release.split(".")) if pre_release else ())
        if _SEMVER.fullmatch(text.partition("+")[0]):
            reason = "has build metadata: a '+' is not allowed in an image's tag"
        elif _SEMVER.fullmatch(text.removeprefix("v")):
            reason = "has a leading 'v': a tag is the bare version"
        elif _SHA.fullmatch(text):
            reason = "is a commit: deploy the version that was built from it"
        elif text == "latest" or re.fullmatch(r"[A-Za-z][A-Za-z0-9._/-]*", text):
            reason = "is a name that can move: it says nothing about what runs"
        else:
            reason = "is not SemVer 2.0"
        raise ReleaseError(f"{text!r} {reason}. A version is asked for, {_EXAMPLES}.")

    @property
    def core(self) -> Self:
        """Return the stable version that this one leads to: ``0.5.0`` for ``0.5.0-alpha.123.1``."""
        return type(self)(self.major, self.minor, self.patch)

    @property
    def channel(self) -> Channel:
        """Return its channel.

        Raises:
            ReleaseError: It is a pre-release of another kind.
        """
        if not self.pre_release:
            return Channel.STABLE
        for channel, shape in _SHAPES.items():
            if shape.fullmatch(".".join(self.pre_release)):
                return channel
        raise ReleaseError(f"{self} belongs to no channel: a version is stable, -rc.N or -alpha.N.N, {_EXAMPLES}.")

    @property
    def _precedence(self) -> tuple[object, ...]:
        # Numbers compare as numbers and come before words; a stable version comes after all of its pre-releases.
        identifiers = tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in self.pre_release)
        return self.major, self.minor, self.patch, not self.pre_release, identifiers

    def __lt__(self, other: "Version") -> bool:
        """Compare by precedence."""
        return self._precedence < other._precedence

    def __str__(self) -> str:
        """Return the version as a tag."""
        text = f"{self.major}.{self.minor}.{self.patch}"
        return "-".join([text, ".".join(self.pre_release)]) if self.pre_release else text


def root_version(text: str) -> Version:
    """Read the version of the root ``pyproject.toml``.

    Raises:
        ReleaseError: It is not a stable version.
    """
    version = Version.parse(text)
    if version.pre_release:
        raise ReleaseError(
            f"The root version {version} is a pre-release; it must be stable, such as {version.core}: "
            "channels are made from it when images are published."
        )
    return version


def successors(version: Version) -> tuple[Version, Version, Version]:
    """Return the lowest patch, the minor and the major version that may follow a stable version."""
    return (
        Version(version.major, version.minor, version.patch + 1),
        Version(version.major, version.minor + 1, 0),
        Version(version.major + 1, 0, 0),
    )


def check_successor(previous: Version, current: Version) -> None:
    """See that a root version may follow another: itself, a later patch, the next minor with 0, or the next major with 0.0.

    Raises:
        ReleaseError: It may not; the text names the versions that may.
    """
    patch, minor, major = successors(previous)
    same_minor = (current.major, current.minor) == (previous.major, previous.minor)
    if current in {previous, minor, major} or (same_minor and current > previous):
        return
    if current < previous:
        reason = "is a downgrade: versions only grow, and a rollback changes what is deployed, not this file"
    elif current.major > major.major:
        reason = f"skips major {major.major}"
    elif current.major == major.major:
        reason = "is the next major version, but not its first"
    elif current.minor > minor.minor:
        reason = f"skips minor {minor.major}.{minor.minor}"
    else:
        reason = "is the next minor version, but not its first"
    raise ReleaseError(
        f"The root version {current} may not follow {previous}: it {reason}. "
        f"Allowed: {previous} (unchanged), {patch} or a later patch of {previous.major}.{previous.minor}, {minor}, {major}."
    )


def alpha_version(root: Version, run_number: int, run_attempt: int) -> Version:
    """Return the tag for test of a run of the publishing workflow; both numbers count from 1.

    Raises:
        ReleaseError: A number is not positive.
    """
    if run_number < 1 or run_attempt < 1:
        raise ReleaseError(f"Run {run_number}, attempt {run_attempt} can't be: both numbers count from 1.")
    return Version(root.major, root.minor, root.patch, ("alpha", str(run_number), str(run_attempt)))


def release_version(text: str, root: Version) -> Version:
    """Read a version that a person asks for, with or without a leading ``v``, of a product with this root version.

    Raises:
        ReleaseError: It is not a version of a channel, or not one of this root version.
    """
    version = Version.parse(text.strip().removeprefix("v"))
    _ = version.channel
    if version.core != root:
        raise ReleaseError(
            f"{version} can't be published from here: the root version of this commit is {root}. "
            f"Choose a commit whose pyproject.toml says {version.core}, or a version of {root}."
        )
    return version


def check_environment(version: Version, environment: str) -> None:
    """See that an environment takes versions of this channel.

    Raises:
        ReleaseError: It does not, or there is no such environment.
    """
    if environment not in ENVIRONMENTS:
        raise ReleaseError(f"There is no environment {environment!r}: choose one of {', '.join(ENVIRONMENTS)}.")
    wanted, channel = ENVIRONMENTS[environment], version.channel
    if channel is not wanted:
        raise ReleaseError(
            f"{environment} takes {wanted} versions, and {version} is of the channel {channel}: nothing was changed."
        )
