"""The parameters of the GitOps repository: what may be set, and what a value may look like.

Values end up in YAML, in expressions, in scripts and in texts. Each kind is so narrow that a value means the same in all of them.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from sens_cli.release.versions import ReleaseError

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"  # RFC 1123, section 2.1
_HOST: Final = rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})+"
_ACCOUNT: Final = r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}"
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"


class ParameterKind(NamedTuple):
    """What the values of a parameter look like.

    Attributes:
        shape: Matches a whole value that is allowed.
        wanted: The same in words, with an example.
    """

    shape: re.Pattern[str]
    wanted: str


KINDS: Final[Mapping[str, ParameterKind]] = {
    "account": ParameterKind(re.compile(_ACCOUNT), "an account on GitHub, such as example-org"),
    "repository": ParameterKind(
        re.compile(rf"{_ACCOUNT}/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,99}}(?<!\.git)"),
        "owner/name of a repository, such as example-org/platform",
    ),
    "registry": ParameterKind(
        re.compile(rf"{_HOST}(?::[0-9]{{1,5}})?(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)+"),
        "a registry's host and path in small letters, such as ghcr.io/example-org/platform",
    ),
    "code_owner": ParameterKind(
        re.compile(rf"@{_ACCOUNT}(?:/[A-Za-z0-9][A-Za-z0-9_-]{{0,99}})?"), "@user or @organisation/team, such as @alice"
    ),
    "address": ParameterKind(re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}"), "an IPv4 address, such as 192.0.2.1"),
    "host": ParameterKind(re.compile(_HOST), "a host name in small letters, such as api.example.org"),
    "switch": ParameterKind(re.compile(r"on|off"), "a switch, such as on (or off)"),
    "mail": ParameterKind(
        re.compile(rf"[A-Za-z0-9._+-]{{1,64}}@{_HOST}"), "an e-mail address, such as operations@example.org"
    ),
    "name": ParameterKind(re.compile(rf"{_LABEL}(?:\.{_LABEL})*"), "a name of Kubernetes, such as traefik"),
    "user": ParameterKind(
        re.compile(r"[a-z][a-z0-9-]{0,31}"), "a user's name in small letters, at most 32, such as alice"
    ),
    "digest": ParameterKind(
        re.compile(r"(?:sha256:[0-9a-f]{64})?"), "a digest, sha256: and 64 hexadecimal digits, or nothing"
    ),
    "version": ParameterKind(
        re.compile(r"v[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}"), "a version of a release, such as v1.2.3"
    ),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, as ``parameters.toml`` describes it.

    Attributes:
        kind: Which values it takes.
        value: What it is when nothing is set.
        meaning: What it is, for people.
        follows: What it becomes when a parameter that is named in it is not the template's own value.
        by: The same, one for each value of another parameter.
        example: Whether ``value`` is a name of the one installation that the template was written for.
    """

    kind: str
    value: str
    meaning: str
    follows: str = ""
    by: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    example: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the parameters that it follows."""
        return (*re.findall(r"\{([a-z_]+)\}", self.follows), *self.by)


def read_parameters(file: Path) -> dict[str, Parameter]:
    """Read what may be set, with the values that hold when nothing is."""
    tables = tomllib.loads(file.read_text(encoding="utf-8"))
    return {name: Parameter(**table) for name, table in tables.items()}


def read_values(file: Path) -> dict[str, str]:
    """Read values that people have written: ``name = "value"``, one a line.

    Raises:
        ReleaseError: The file can't be read, or holds something else.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ReleaseError(f"{file} can't be read: {error}.") from error
    for name, value in table.items():
        if not isinstance(value, str):
            raise ReleaseError(f'{file}: {name} must be a text: write {name} = "…".')
    return table


def parse_setting(text: str) -> tuple[str, str]:
    """Read ``name=value`` of a command line.

    Raises:
        ReleaseError: There is no equals sign.
    """
    name, sign, value = text.partition("=")
    if not sign:
        raise ReleaseError(f"--set {text!r} is not name=value.")
    return name, value


class ResolvedParameters(NamedTuple):
    """The value of each parameter, and where it comes from.

    Attributes:
        values: By name.
        given: Names of those that were set.
        followed: Names of those that follow from what was set.
    """

    values: dict[str, str]
    given: frozenset[str]
    followed: frozenset[str]

    def left(self, known: Mapping[str, Parameter], *, example: bool) -> list[str]:
        """Return the names of those that have the template's own value, although nobody asked for it, in their order."""
        unset = self.values.keys() - self.given - self.followed
        return [name for name, parameter in known.items() if name in unset and parameter.example is example]


def resolve(known: Mapping[str, Parameter], given: Iterable[tuple[str, str]]) -> ResolvedParameters:
    """Return the value of each parameter; a later setting replaces an earlier one, and defaults follow from what is set.

    Raises:
        ReleaseError: A name is unknown, a value is not of its kind, or values contradict each other.
    """
    settings: dict[str, str] = {}
    for name, value in given:
        if name not in known:
            raise ReleaseError(f"There is no parameter {name!r}. There are: {', '.join(sorted(known))}.")
        settings[name] = value
    for name, value in settings.items():
        _check_kind(name, known[name], value)
    values: dict[str, str] = {}
    followed: set[str] = set()
    # The file names what a parameter follows before the parameter.
    for name, parameter in known.items():
        if name in settings:
            values[name] = settings[name]
        elif any(values[source] != known[source].value for source in parameter.sources):
            values[name] = _follow(name, parameter, values)
            followed.add(name)
        else:
            values[name] = parameter.value
        _check_kind(name, parameter, values[name])
    _see_that_they_agree(values)
    return ResolvedParameters(values, frozenset(settings), frozenset(followed))


def _check_kind(name: str, parameter: Parameter, value: str) -> None:
    kind = KINDS[parameter.kind]
    if not kind.shape.fullmatch(value):
        raise ReleaseError(f"{name}: {value!r} is not {kind.wanted}.")


def _follow(name: str, parameter: Parameter, values: Mapping[str, str]) -> str:
    for source, table in parameter.by.items():
        if values[source] not in table:
            raise ReleaseError(
                f"{name}: nothing is known about the {source} {values[source]!r}: set {name} too. It is the {parameter.meaning}."
            )
        return table[values[source]]
    text = parameter.follows.format_map(values)
    if parameter.kind == "registry":
        return text.lower()
    if parameter.kind == "user":
        return _user(text, taken=values["argo_deploy_user"])
    return text


def _user(code_owner: str, taken: str) -> str:
    """Return a user's name for whoever reviews: ``alice`` for ``@alice``, ``owners`` for ``@acme/owners``."""
    name = re.sub(r"[^a-z0-9-]", "-", re.split(r"[@/]", code_owner)[-1].lower())[:32]
    return name if KINDS["user"].shape.fullmatch(name) and name not in {taken, "admin"} else "owner"


def _see_that_they_agree(values: Mapping[str, str]) -> None:
    hosts: dict[str, str] = {}
    for name in (name for name in values if name.endswith("_host")):
        if other := hosts.get(values[name]):
            raise ReleaseError(f"{other} and {name} are both {values[name]}: each needs a host of its own.")
        hosts[values[name]] = name
    for name in ("product_repository", "gitops_repository"):
        if not values[name].startswith(f"{values['owner']}/"):
            raise ReleaseError(
                f"{name}: {values[name]} does not belong to the owner {values['owner']}: set owner, product_repository "
                "and gitops_repository together."
            )
    if values["product_repository"] == values["gitops_repository"]:
        raise ReleaseError("product_repository and gitops_repository are the same: they are two repositories.")
    users = [values["argo_deploy_user"], values["argo_owner_user"], "admin"]
    if len(set(users)) != len(users):
        raise ReleaseError(
            "argo_deploy_user and argo_owner_user must differ from each other and from admin: who deploys to test must "
            "not be who owns production."
        )
