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
_SEMVER = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-{_IDENTIFIER}(?:\.{_IDENTIFIER})*)?")
_SHA = re.compile(r"(?:git-|sha-)?[0-9a-f]{7,64}", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")


class ReleaseError(Exception):
    """A step of a release is refused; the text says why and what would be allowed."""


class Channel(StrEnum):
    """How far a version has come."""

    ALPHA = "alpha"
    RC = "rc"
    STABLE = "stable"


# Which channel an environment takes, and nothing else.
ENVIRONMENTS: Final = {"test": Channel.ALPHA, "staging": Channel.RC, "production": Channel.STABLE}
_EXAMPLE: Final = {Channel.ALPHA: "0.5.0-alpha.123.1", Channel.RC: "0.5.0-rc.1", Channel.STABLE: "0.5.0"}
_EXAMPLES: Final = f"such as {_EXAMPLE[Channel.ALPHA]}, {_EXAMPLE[Channel.RC]} or {_EXAMPLE[Channel.STABLE]}"
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
        if fault := _fault(text):
            raise ReleaseError(f"{text[:MAXIMUM_LENGTH]!r} {fault}. Give a version, {_EXAMPLES}.")
        core, _, pre_release = text.partition("-")
        major, minor, patch = core.split(".")
        return cls(int(major), int(minor), int(patch), tuple(pre_release.split(".")) if pre_release else ())

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

    def __lt__(self, other: object) -> bool:
        """Compare by precedence."""
        return self._precedence < other._precedence if isinstance(other, Version) else NotImplemented

    def __str__(self) -> str:
        """Return the version as a tag."""
        text = f"{self.major}.{self.minor}.{self.patch}"
        return "-".join([text, ".".join(self.pre_release)]) if self.pre_release else text


def _fault(text: str) -> str | None:  # noqa: PLR0911 - a table with an answer for each kind of text
    """Return what keeps a text from being a version, or None when it is one."""
    if len(text) > MAXIMUM_LENGTH:
        return f"has {len(text)} characters: a tag has no more than {MAXIMUM_LENGTH}"
    if _SEMVER.fullmatch(text):
        return None
    if _SEMVER.fullmatch(text.partition("+")[0]):
        return "has build metadata: a '+' is not allowed in an image's tag"
    if _SEMVER.fullmatch(text.removeprefix("v")):
        return "has a leading 'v': a tag is the bare version"
    if _SHA.fullmatch(text):
        return "is a commit: deploy the version that was built from it"
    if _NAME.fullmatch(text):
        return "is a name that can move: it says nothing about what runs"
    return "is not SemVer 2.0"


def root_version(text: str) -> Version:
    """Read the version of the root ``pyproject.toml``.

    Raises:
        ReleaseError: It is not a stable version.
    """
    fault = _fault(text) or ("is a pre-release" if "-" in text else None)
    if fault:
        raise ReleaseError(
            f"The root version {text[:MAXIMUM_LENGTH]!r} {fault}. It is three numbers, "
            "from which the tags of all channels are made when images are published."
        )
    return Version.parse(text)


def successors(version: Version) -> tuple[Version, Version, Version]:
    """Return the lowest patch, the minor and the major version that may follow a stable version."""
    return (
        Version(version.major, version.minor, version.patch + 1),
        Version(version.major, version.minor + 1, 0),
        Version(version.major + 1, 0, 0),
    )


def allowed_after(previous: Version) -> str:
    """Return the sentence that names the root versions that may follow another."""
    patch, minor, major = successors(previous)
    line = f"{previous.major}.{previous.minor}"
    return f"Allowed: {previous} (unchanged), {patch} or a later patch of {line}, {minor}, {major}."


def check_successor(previous: Version, current: Version) -> None:
    """See that a root version may follow another: itself, a later patch, the next minor with 0, or the next major with 0.0.

    Raises:
        ReleaseError: It may not; the text names the versions that may.
    """
    _, minor, major = successors(previous)
    later_patch = (current.major, current.minor) == (previous.major, previous.minor) and current > previous
    if not current.pre_release and (later_patch or current in {previous, minor, major}):
        return
    if current.pre_release:
        reason = "is a pre-release"
    elif current < previous:
        reason = "is a downgrade: versions only grow, and a rollback changes what is deployed, not this file"
    elif current.major > major.major:
        reason = f"skips major {major.major}"
    elif current.major == major.major:
        reason = f"is not the first version of major {major.major}, which is {major}"
    elif current.minor > minor.minor:
        reason = f"skips minor {minor.major}.{minor.minor}"
    else:
        reason = f"is not the first version of minor {minor.major}.{minor.minor}, which is {minor}"
    raise ReleaseError(f"The root version {current} may not follow {previous}: it {reason}. {allowed_after(previous)}")


def next_root_version(text: str, previous: Version | None) -> Version:
    """Read the version of the root ``pyproject.toml``, and see that it may follow the previous one where there is one.

    Raises:
        ReleaseError: It is not a stable version, or may not follow; the text names the versions that may.
    """
    try:
        current = root_version(text)
    except ReleaseError as error:
        if previous is None:
            raise
        raise ReleaseError(f"{error} {allowed_after(previous)}") from error
    if previous is not None:
        check_successor(previous, current)
    return current


def alpha_version(root: Version, run_number: int, run_attempt: int) -> Version:
    """Return the tag for test of a run of the publishing workflow; both numbers count from 1.

    Raises:
        ReleaseError: A number is not positive, or the tag would be too long.
    """
    if run_number < 1 or run_attempt < 1:
        raise ReleaseError(f"Run {run_number}, attempt {run_attempt} can't be: both numbers count from 1.")
    return Version.parse(f"{root.core}-alpha.{run_number}.{run_attempt}")


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
            f"{environment} takes {wanted} versions, and {version} is of the channel {channel}, "
            f"which is for {next(name for name, takes in ENVIRONMENTS.items() if takes is channel)}. "
            f"Choose one such as {_EXAMPLE[wanted]}."
        )
