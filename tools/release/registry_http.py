"""Speaks with a registry over HTTP: authentication, redirections, and what to do about each refusal.

The calls are those of the OCI distribution specification 1.1; tokens are asked for as the "Token Authentication Specification"
of the distribution project tells (distribution.github.io/distribution/spec/auth/token).
"""

import base64
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, Self

from sens_cli.release.versions import ReleaseError
from tools.release.http import AGENT, MAXIMUM_BYTES, NO_ANSWER, is_local, is_safe, one_line, opener
from tools.release.program import parsed

GITHUB_HOST: Final = "ghcr.io"
"""GitHub's registry, which a run's own token is good for."""

_CHALLENGE = re.compile(r'([A-Za-z_]+)="((?:[^"\\]|\\.)*)"')
_SECRET = re.compile(r"[!-~]+")


class Credentials(NamedTuple):
    """What one logs in to a registry with.

    Attributes:
        user: The account's name.
        password: Its password or token; it is in no text of an error.
    """

    user: str
    password: str

    @classmethod
    def from_environment(cls, host: str, environment: Mapping[str, str] = os.environ) -> Self | None:
        """Read SENS_REGISTRY_USER and SENS_REGISTRY_PASSWORD; None when both are empty or not there.

        For GitHub's own registry, and for no other, a run's own SENS_GHCR_USER and SENS_GHCR_TOKEN take their place then.

        Args:
            host: The registry's host.
            environment: Where they are read.

        Raises:
            ReleaseError: One is without the other, or they can't be sent.
        """
        user = environment.get("SENS_REGISTRY_USER", "")
        password = environment.get("SENS_REGISTRY_PASSWORD", "")
        if not user and not password and host == GITHUB_HOST:
            user, password = environment.get("SENS_GHCR_USER", ""), environment.get("SENS_GHCR_TOKEN", "")
        if not user and not password:
            return None
        if not _SECRET.fullmatch(user) or not _SECRET.fullmatch(password) or ":" in user:
            raise ReleaseError(
                "SENS_REGISTRY_USER and SENS_REGISTRY_PASSWORD must both be set, without spaces or line breaks, "
                "or both be left out where images can be read by everybody."
            )
        return cls(user, password)

    @property
    def header(self) -> str:
        """Return the value of ``Authorization`` (RFC 7617)."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode("ascii")


class RegistryAnswer(NamedTuple):
    """What a registry said.

    Attributes:
        body: Its content.
        headers: By name in small letters.
    """

    body: bytes
    headers: Mapping[str, str]


class _Call(NamedTuple):
    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.url}"


class Transport:
    """A client of one registry.

    Args:
        host: Name or address, with a port where it is not the usual one; http is spoken with this machine alone.
        credentials: What to log in with; None reads as everybody.
        timeout_seconds: How long an answer may take.
    """

    def __init__(self, host: str, credentials: Credentials | None, timeout_seconds: float) -> None:
        local = is_local(urllib.parse.urlsplit(f"//{host}").hostname)
        self._base = f"{'http' if local else 'https'}://{host}/v2/"
        self._credentials = credentials
        self._timeout_seconds = timeout_seconds
        self._opener = opener(local=local, redirects=True)
        # A token for reading is not one for writing.
        self._authorization: dict[tuple[str, str], str] = {}

    def get(self, repository: str, path: str, accept: str) -> RegistryAnswer | None:
        """Return what is at ``/v2/<repository>/<path>``, None when there is no such thing.

        Raises:
            ReleaseError: It can't be known; the text says what to do.
        """
        return self._call(_Call("GET", f"{self._base}{repository}/{path}", {"Accept": accept}), repository, "pull")

    def put(self, repository: str, path: str, media_type: str, body: bytes) -> None:
        """Write what is at ``/v2/<repository>/<path>``.

        Raises:
            ReleaseError: It was not written, or it can't be known; the text says what to do.
        """
        call = _Call("PUT", f"{self._base}{repository}/{path}", {"Content-Type": media_type}, body)
        if self._call(call, repository, "pull,push") is None:
            raise ReleaseError(f"{call} was answered with 404: is this a registry of images?")

    def _call(self, call: _Call, repository: str, actions: str) -> RegistryAnswer | None:
        key = (repository, actions)
        try:
            try:
                return self._send(call, self._authorization.get(key))
            except urllib.error.HTTPError as error:
                # Without a token, or with one that is no longer valid.
                if error.code != HTTPStatus.UNAUTHORIZED:
                    raise
                challenge = error.headers.get_all("WWW-Authenticate") or []
                error.close()
            self._authorization[key] = self._authorize(call, f"repository:{repository}:{actions}", challenge)
            return self._send(call, self._authorization[key])
        except urllib.error.HTTPError as error:
            with error:
                if error.code == HTTPStatus.NOT_FOUND:
                    return None
                raise self._refusal(call, error) from None
        except NO_ANSWER as error:
            raise ReleaseError(
                f"{call} got no answer ({one_line(error)}): check the registry's name and the connection, "
                "then run this again."
            ) from None

    def _authorize(self, call: _Call, scope: str, challenges: list[str]) -> str:
        """Return the ``Authorization`` that a registry asks for in its ``WWW-Authenticate``."""
        for challenge in challenges:
            scheme, _, rest = challenge.partition(" ")
            if scheme.lower() == "bearer":
                return self._token(call, scope, dict(_CHALLENGE.findall(rest)))
            if scheme.lower() == "basic" and self._credentials is not None:
                return self._credentials.header
        raise ReleaseError(
            f"{call} asks for a login: set SENS_REGISTRY_USER and SENS_REGISTRY_PASSWORD to an account that may do it."
        )

    def _token(self, call: _Call, scope: str, challenge: Mapping[str, str]) -> str:
        realm = challenge.get("realm", "")
        if not is_safe(realm):
            raise ReleaseError(
                f"{call} asks for a token from {realm!r}, which is not an https address: is this a registry?"
            )
        query = {"scope": challenge.get("scope") or scope}
        if service := challenge.get("service"):
            query["service"] = service
        address = f"{realm}{'&' if '?' in realm else '?'}{urllib.parse.urlencode(query)}"
        login = self._credentials.header if self._credentials is not None else None
        body, _ = self._send(_Call("GET", address, {"Accept": "application/json"}), login)
        answer = parsed(body, MAXIMUM_BYTES)
        token = (answer.get("token") or answer.get("access_token")) if isinstance(answer, dict) else None
        if not isinstance(token, str) or not _SECRET.fullmatch(token):
            raise ReleaseError(f"{realm} answered without a token: is this the registry's token service?")
        return f"Bearer {token}"

    def _send(self, call: _Call, authorization: str | None) -> RegistryAnswer:
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            call.url,
            method=call.method,
            data=call.body,
            headers={"User-Agent": AGENT, **call.headers},
        )
        if authorization is not None:
            request.add_unredirected_header("Authorization", authorization)
        with self._opener.open(request, timeout=self._timeout_seconds) as answer:
            body = answer.read(MAXIMUM_BYTES + 1)
            headers = {name.lower(): value for name, value in answer.headers.items()}
        if len(body) > MAXIMUM_BYTES:
            raise ReleaseError(f"{call} was answered with more than {MAXIMUM_BYTES} bytes: is this a registry?")
        return RegistryAnswer(body, headers)

    def _refusal(self, call: _Call, error: urllib.error.HTTPError) -> ReleaseError:
        account = f"the account {self._credentials.user!r}" if self._credentials else "everybody (no account is set)"
        match error.code:
            case HTTPStatus.UNAUTHORIZED:
                remedy = f"the login as {account} was not accepted; renew its password or token"
            case HTTPStatus.FORBIDDEN:
                remedy = (
                    f"{account} may not do this; give it the right to (packages: read or write for a workflow), or set "
                    "SENS_REGISTRY_USER and SENS_REGISTRY_PASSWORD to one that may"
                )
            case HTTPStatus.TOO_MANY_REQUESTS:
                remedy = "too many calls were made; wait for some minutes, then run this again"
            case code if code >= HTTPStatus.INTERNAL_SERVER_ERROR:
                remedy = "the registry has trouble; run this again later"
            case _:
                remedy = "is this a registry of images?"
        # A registry redirects, and a token service has an address of its own: who refused is what was asked last.
        asked = (error.url or call.url).partition("?")[0]
        return ReleaseError(
            f"{call.method if asked == call.url else 'GET'} {asked} was refused with {error.code}{_reasons(error)}: {remedy}."
        )


def _reasons(error: urllib.error.HTTPError) -> str:
    """Return the reasons of an error's document, ``{"errors": [{"code": …, "message": …}, …]}`` (section "Error codes")."""
    try:
        document = json.loads(error.read(MAXIMUM_BYTES))
        texts = [f"{one.get('code', '')} {one.get('message', '')}" for one in document["errors"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, *NO_ANSWER):
        return ""
    return f" ({one_line('; '.join(texts))})"
