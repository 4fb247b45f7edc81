"""Asks OSV, the open database of vulnerabilities, about versions of Python packages (google.github.io/osv.dev/api)."""

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from itertools import batched
from typing import Final, NamedTuple

ADDRESS: Final = "https://api.osv.dev"
_ECOSYSTEM: Final = "PyPI"
_TIMEOUT_SECONDS: Final = 30.0
_MAXIMUM_BYTES: Final = 16 * 1024 * 1024
# What the interface takes at once.
_BATCH: Final = 1000
_MAXIMUM_PAGES: Final = 20


class UnreachableError(Exception):
    """The database gives no answer now; the text says why."""


class Package(NamedTuple):
    """A version of a package, by its normalised name."""

    name: str
    version: str


class Vulnerability(NamedTuple):
    """What is known about a version of a package.

    Attributes:
        package: Which version.
        id: OSV's name for it.
        aliases: What others call it, such as ``CVE-2026-1234``.
        summary: A sentence; may be empty.
        fixed: The versions that no longer have it, as the entry lists them.
    """

    package: Package
    id: str
    aliases: tuple[str, ...]
    summary: str
    fixed: tuple[str, ...]


class Database:
    """The database over HTTP.

    Args:
        address: Where it is, https, or http on this machine.
    """

    def __init__(self, address: str = ADDRESS) -> None:
        self._address = address.rstrip("/")

    def vulnerabilities(self, packages: Sequence[Package]) -> Iterator[Vulnerability]:
        """Yield what is known about each package, withdrawn entries left out.

        Raises:
            UnreachableError: There is no answer, or one that means nothing.
        """
        entries: dict[str, Mapping[str, object]] = {}
        for package, name in self._found(packages):
            if name not in entries:
                entries[name] = self._call(f"/v1/vulns/{name}")
            entry = entries[name]
            if "withdrawn" not in entry:
                yield Vulnerability(
                    package, name, tuple(_texts(entry.get("aliases"))), _summary(entry), _fixed(entry, package)
                )

    def _found(self, packages: Sequence[Package]) -> Iterator[tuple[Package, str]]:
        pending: list[tuple[Package, str | None]] = [(package, None) for package in packages]
        for _ in range(_MAXIMUM_PAGES):
            again: list[tuple[Package, str | None]] = []
            for part in batched(pending, _BATCH):
                answer = self._call("/v1/querybatch", {"queries": [_query(package, page) for package, page in part]})
                results = answer.get("results")
                if not isinstance(results, list) or len(results) != len(part):
                    raise UnreachableError(f"{self._address} answered something else than one result for each package.")
                for (package, _page), result in zip(part, results, strict=True):
                    for entry in result.get("vulns") or []:
                        yield package, str(entry["id"])
                    if token := result.get("next_page_token"):
                        again.append((package, str(token)))
            if not again:
                return
            pending = again
        raise UnreachableError(f"{self._address} had more than {_MAXIMUM_PAGES} pages.")

    def _call(self, path: str, body: object = None) -> Mapping[str, object]:
        request = urllib.request.Request(  # noqa: S310 - the address is a constant, or this machine's in tests
            f"{self._address}{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "User-Agent": "sens-platform"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - as above
                document = json.loads(answer.read(_MAXIMUM_BYTES))
        except urllib.error.HTTPError as error:
            raise UnreachableError(f"{self._address} answered {error.code} {HTTPStatus(error.code).phrase}.") from None
        except urllib.error.URLError as error:
            raise UnreachableError(f"{self._address} can't be reached: {error.reason}.") from None
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"{self._address} broke off: {error}.") from None
        except ValueError:
            raise UnreachableError(f"{self._address} answered no JSON.") from None
        if not isinstance(document, dict):
            raise UnreachableError(f"{self._address} answered no JSON object.")
        return document


def _query(package: Package, page: str | None) -> dict[str, object]:
    query: dict[str, object] = {
        "package": {"name": package.name, "ecosystem": _ECOSYSTEM},
        "version": package.version,
    }
    return query if page is None else query | {"page_token": page}


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, list):
        yield from (str(one) for one in value)


def _summary(entry: Mapping[str, object]) -> str:
    text = str(entry.get("summary") or entry.get("details") or "")
    return " ".join(text.split())[:200]


def _fixed(entry: Mapping[str, object], package: Package) -> tuple[str, ...]:
    """Return the versions in an entry's ranges that end it (ossf.github.io/osv-schema, "affected[].ranges[].events[]")."""
    found: list[str] = []
    affected = entry.get("affected")
    for one in affected if isinstance(affected, list) else []:
        named = one.get("package", {})
        if named.get("ecosystem") == _ECOSYSTEM and str(named.get("name", "")).lower() == package.name:
            events = [event for span in one.get("ranges", []) if span.get("type") != "GIT" for event in span["events"]]
            found += [str(event["fixed"]) for event in events if "fixed" in event]
    return tuple(dict.fromkeys(found))
