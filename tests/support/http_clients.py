"""HTTP clients of tests: the authorities that this machine trusts are read once, not by each client, which takes 40 ms of a core."""

import os
import ssl
from functools import cache

import httpcore2

_make = httpcore2.default_ssl_context


@cache
def _made(_trust_env: bool, *_files: str | None) -> ssl.SSLContext:
    return _make(_trust_env=_trust_env)


def _default_ssl_context(*, _trust_env: bool = True) -> ssl.SSLContext:
    """Return what httpx2 asks for; another one where the environment names other authorities."""
    return _made(_trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


def pytest_configure() -> None:
    """Give clients what is there already; httpx2 looks the function up at each call."""
    httpcore2.default_ssl_context = _default_ssl_context
