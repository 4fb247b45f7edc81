"""Sources of tenants, made over the API as a tenant makes them."""

import json
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import httpx2

from tools.bench.formats import FORMATS, JAVASCRIPT
from tools.stack.path import API, Stack, StackError
from tools.stack.server import HOST

TENANT: Final = "bench"
"""Whose the load is."""
_SUBSCRIBED_SECONDS: Final = 60


def make_sources(stack: Stack) -> None:
    """Make a source of each format over the API, and wait until the ingestion worker subscribes to them.

    Raises:
        StackError: One of them is refused, or not subscribed to.
    """
    for name, each in FORMATS.items():
        profile = None if each.codec is None else name
        source: dict[str, object] = {
            "topic_filter": each.topic_filter,
            "format": each.format,
            "settings": {},
            "default_profile": profile,
        }
        make_source(stack, TENANT, name, source, JAVASCRIPT if each.codec == "javascript" else each.codec)


def make_source(
    stack: Stack,
    tenant: str,
    name: str,
    source: Mapping[str, object],
    codec: str | None,
) -> None:
    """Make a tenant's source, with a profile of its name where it has a codec, and wait until it is subscribed to.

    Args:
        stack: Its API is started where it does not run.
        tenant: Whose it is.
        name: Its name.
        source: Its document.
        codec: The profile's: the name of one that is built in, or JavaScript.

    Raises:
        StackError: Something is refused, or it is not subscribed to.
    """
    if API not in stack.workers:
        stack.add_api(MappingProxyType({}))
    key = json.loads(stack.sens("keys", "create", f"--tenant={tenant}", f"--name={name}", "--json"))["key"]
    url = f"http://{HOST}:{stack.workers[API].port}/api/v1/"
    with httpx2.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as api:
        if codec is not None and "function" in codec:
            _made(api.post(f"codecs/{name}/versions", json={"source": codec}))
            codec = f"{name}@1"
        if codec is not None:
            _made(api.put(f"profiles/{name}", json={"codec": codec}))
        _made(api.put(f"sources/{name}", json=source))
        deadline = time.monotonic() + _SUBSCRIBED_SECONDS
        while (state := _made(api.get(f"sources/{name}")).json()["state"])["status"] != "connected":
            if time.monotonic() > deadline:
                raise StackError(f"source {name} is {state['status']} after {_SUBSCRIBED_SECONDS} s: {state['detail']}")
            time.sleep(0.2)


def _made(answer: httpx2.Response) -> httpx2.Response:
    if not answer.is_success:
        raise StackError(f"{answer.request.method} {answer.request.url.path}: {answer.text}")
    return answer
