"""What a run of the publishing workflow is to publish. It is decided before anything is built, and the same for all that follows."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Final, Self

from sens_cli.release.record import IMAGES, check_commit
from sens_cli.release.versions import (
    Channel,
    ReleaseError,
    Version,
    alpha_version,
    check_environment,
    release_version,
)
from tools.release.program import parsed
from tools.release.registry import Registry
from tools.release.source import Source

PLATFORMS: Final = ("linux/amd64", "linux/arm64")
"""What every image is built for."""

AFTER_A_MERGE: Final = "workflow_run"
BY_HAND: Final = "workflow_dispatch"
EVENTS: Final = (AFTER_A_MERGE, BY_HAND)
"""What publishing is started by, in GitHub's words."""

_NUMBER = re.compile(r"[1-9][0-9]{0,9}")
_MAXIMUM_BYTES: Final = 16 * 1024
_SHOWN: Final = 100


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, as texts that nobody has checked.

    Attributes:
        event: ``workflow_run`` after a merge, ``workflow_dispatch`` by a person.
        run_number: Number of the run, counted from 1.
        run_attempt: Number of its attempt, counted from 1.
        head_sha: After a merge, the commit that the tests passed on.
        ref: By a person: branch, tag or full commit; main when empty.
        release_version: By a person: the version; the run's own alpha when empty.
        update_test_environment: By a person: ``true`` to deploy to test.
    """

    event: str
    run_number: str
    run_attempt: str
    head_sha: str = ""
    ref: str = ""
    release_version: str = ""
    update_test_environment: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be published.

    Attributes:
        version: The images' tag.
        channel: Its channel.
        commit: The full commit that is built.
        registry: Host and folder of the images.
        images: Their names.
        platforms: What each is built for.
        update_test: Whether test is updated afterwards.
    """

    version: str
    channel: str
    commit: str
    registry: str
    images: tuple[str, ...]
    platforms: tuple[str, ...]
    update_test: bool

    def __post_init__(self) -> None:
        version = Version.parse(self.version)
        if self.channel != version.channel:
            raise ReleaseError(f"The plan says channel {self.channel[:_SHOWN]!r}; {version} is of {version.channel}.")
        check_commit(self.commit)
        Registry(self.registry)
        if self.images != IMAGES or self.platforms != PLATFORMS:
            raise ReleaseError(
                "The plan's images or platforms are not those of this version of the scripts: plan again."
            )
        if self.update_test:
            check_environment(version, "test")

    def dump(self) -> str:
        """Return the plan as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a plan.

        Raises:
            ReleaseError: It is none.
        """
        document = parsed(text, _MAXIMUM_BYTES)
        if not isinstance(document, dict) or set(document) != {field.name for field in fields(cls)}:
            raise ReleaseError("This is not a plan: give what 'scripts/publish-images plan' printed.")
        return cls(
            **{name: _text(document, name) for name in ("version", "channel", "commit", "registry")},
            images=_texts(document, "images"),
            platforms=_texts(document, "platforms"),
            update_test=document["update_test"] is True,
        )


def _text(document: Mapping[str, object], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise ReleaseError(f"The plan's {name} is not text: give what 'scripts/publish-images plan' printed.")
    return value


def _texts(document: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = document[name]
    if not isinstance(value, list):
        raise ReleaseError(f"The plan's {name} are not a list: give what 'scripts/publish-images plan' printed.")
    return tuple(str(one) for one in value)


def make_plan(request: Request, source: Source, registry: str) -> Plan:
    """Decide what is published; nothing has been built or written when this refuses.

    Raises:
        ReleaseError: It is refused; the text says why and what would be allowed.
    """
    if request.event == AFTER_A_MERGE:
        commit, version, update_test = _merged(request, source)
    elif request.event == BY_HAND:
        commit, version, update_test = _asked_for(request, source)
    else:
        raise ReleaseError(
            f"Images are not published by the event {request.event[:_SHOWN]!r}: "
            "workflow_run (after a merge) and workflow_dispatch (by a person) do."
        )
    return Plan(str(version), version.channel, commit, registry, IMAGES, PLATFORMS, update_test)


def _merged(request: Request, source: Source) -> tuple[str, Version, bool]:
    if request.ref or request.release_version or request.update_test_environment:
        raise ReleaseError("After a merge there is no choice of ref, release_version and update_test_environment.")
    check_commit(request.head_sha)
    commit = source.resolve(request.head_sha)
    if not source.is_reviewed(commit):
        raise ReleaseError(f"{commit} is not in main (any more): only what was merged is published by itself.")
    return commit, _alpha(request, source.version(commit)), True


def _asked_for(request: Request, source: Source) -> tuple[str, Version, bool]:
    if request.update_test_environment not in {"true", "false", ""}:
        raise ReleaseError(
            f"update_test_environment is {request.update_test_environment[:_SHOWN]!r}; it can be true or false."
        )
    update_test = request.update_test_environment == "true"
    commit = source.resolve(request.ref)
    root = source.version(commit)
    own = _alpha(request, root)
    # Any version that is not published yet, an alpha that no run has numbered too: whoever names one wants that one.
    version = release_version(request.release_version, root) if request.release_version.strip() else own
    if update_test:
        check_environment(version, "test")
    if version.channel is not Channel.ALPHA and not source.is_reviewed(commit):
        raise ReleaseError(
            f"{commit} is neither in main nor in a branch release/…: {version} is published from reviewed commits alone. "
            "Merge it first, or publish an alpha version of it."
        )
    return commit, version, update_test


def _alpha(request: Request, root: Version) -> Version:
    numbers = request.run_number, request.run_attempt
    if not all(_NUMBER.fullmatch(number) for number in numbers):
        raise ReleaseError(
            f"Run {request.run_number[:_SHOWN]!r}, attempt {request.run_attempt[:_SHOWN]!r} can't be: "
            "both are numbers counted from 1."
        )
    return alpha_version(root, *map(int, numbers))
