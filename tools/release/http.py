"""What the clients of GitHub and of registries have in common: HTTP of the standard library, bounded, in the clear with this machine alone."""

import functools
import http.client
import urllib.error
import urllib.parse
import urllib.request
from typing import IO, Final, override

from tools.release.program import printable

TIMEOUT_SECONDS: Final = 30.0
MAXIMUM_BYTES: Final = 8 * 1024 * 1024
"""Of an answer. A manifest of an image has 4 MiB at most (OCI distribution specification 1.1, section "Pushing manifests")."""

AGENT: Final = "sens-platform-release"
NO_ANSWER: Final = (OSError, http.client.HTTPException)
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # A redirection would carry the token to wherever it points.
    @override
    def redirect_request(self, *_: object) -> None:
        return None


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    # Registries redirect to where their blobs are stored. The header with the token is not taken along (it is added as an
    # unredirected one), and what is encrypted stays so.
    @override
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if not is_safe(newurl):
            raise urllib.error.URLError(f"it redirects to {newurl.partition('?')[0]!r}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@functools.cache
def opener(*, local: bool, redirects: bool) -> urllib.request.OpenerDirector:
    """Return what opens requests; once, because it loads the certificates of the system.

    Args:
        local: Whether it speaks with this machine, whom a proxy would not find.
        redirects: Whether it follows redirections, none that leaves https.
    """
    proxies = [urllib.request.ProxyHandler({})] if local else []
    return urllib.request.build_opener(_SafeRedirects if redirects else _NoRedirect, *proxies)


def is_local(host: str | None) -> bool:
    """Tell whether a host is this machine."""
    return host in _LOOPBACK


def is_safe(url: str) -> bool:
    """Tell whether what is sent to an address is encrypted, or stays on this machine."""
    parts = urllib.parse.urlsplit(url)
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and is_local(parts.hostname)))


def one_line(value: object) -> str:
    """Return a foreign text as one short line without control characters."""
    return printable(str(value))[:300]
