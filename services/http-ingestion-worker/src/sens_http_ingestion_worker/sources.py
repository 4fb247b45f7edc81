"""What is known of the sources that take messages by HTTP: whether their requests are signed, what came, and where answers could go to."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from sens_common.source_states import MAX_DOWNLINK_URL, Downlinks, SourceState, failed
from sens_common.tenant_limits import TenantLimits
from sens_http_ingestion_worker import metrics
from sens_http_ingestion_worker.as_keys import AsKeys
from sens_http_ingestion_worker.keys import Sender
from sens_http_ingestion_worker.refusals import unchecked, wrong_token
from sens_http_ingestion_worker.tokens import Signature, signature_of

DOWNLINK_HEADERS: Final = (b"x-downlink-push", b"x-downlink-replace")
"""Of The Things Stack's webhooks ("Scheduling Downlinks"). X-Downlink-Apikey, which comes with them, is a secret and is kept nowhere."""


_ADDRESS: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]_-]+(/[A-Za-z0-9._~%/@-]*)?")
"""An address without user, password and query, where secrets could be."""


class _Activity:
    """What came by a source.

    Attributes:
        messages: How many were stored.
        last_message_at: When the last one was, microseconds since the epoch.
        downlinks: Of the last request that named some.
    """

    __slots__ = ("downlinks", "last_message_at", "messages")

    def __init__(self) -> None:
        self.messages = 0
        self.last_message_at: int | None = None
        self.downlinks: Downlinks | None = None


class HttpSources:
    """The sources that have an ingest key."""

    def __init__(self, as_keys: AsKeys, clock: Callable[[], float] = time.time) -> None:
        self._as_keys = as_keys
        self._clock = clock
        self._by_tenant: dict[str, dict[str, _Activity]] = {}

    def follow(self, limits: Mapping[str, TenantLimits]) -> None:
        """Know the sources of these tenants, and no others."""
        before, self._by_tenant = self._by_tenant, {}
        for tenant, each in limits.items():
            known = before.get(tenant, {})
            names = {key.source for key in each.ingest_keys if key.source is not None}
            if names:
                self._by_tenant[tenant] = {name: known.get(name) or _Activity() for name in names}

    def check(self, sender: Sender, query: str, body: bytes) -> None:
        """Check that a network has signed a request, where its source has a key for that.

        Raises:
            RefusedError: It has not, or that can't be told.
        """
        key = None if sender.source is None else self._as_keys.of(sender.tenant, sender.source)
        if key is None:
            return
        if key.problem:
            raise unchecked()
        signature = signature_of(body, query, key.keys)
        metrics.TOKENS.labels(signature.value).inc()
        if signature is not Signature.RIGHT:
            raise wrong_token(signature)

    def note_stored(self, sender: Sender, headers: Mapping[bytes, bytes]) -> None:
        """Take note of a message that is stored, and of the headers of its request."""
        if sender.source is None:
            return
        activity = self._by_tenant.get(sender.tenant, {}).get(sender.source)
        if activity is None:  # its last key was revoked meanwhile
            return
        activity.messages += 1
        activity.last_message_at = int(self._clock() * 1_000_000)
        push, replace = (_address(headers.get(name)) for name in DOWNLINK_HEADERS)
        if push is not None or replace is not None:
            activity.downlinks = Downlinks(push, replace)

    def states(self) -> Mapping[str, Mapping[str, SourceState]]:
        """Return how they do; see `sens_common.ingestion.states`."""
        return {
            tenant: {name: self._state(tenant, name, activity) for name, activity in sources.items()}
            for tenant, sources in self._by_tenant.items()
        }

    def _state(self, tenant: str, source: str, activity: _Activity) -> SourceState:
        key = self._as_keys.of(tenant, source)
        if key is not None and key.problem:
            return failed("credential_missing", key.problem)
        return SourceState(
            "connected",
            last_message_at=activity.last_message_at,
            messages=activity.messages,
            checks_token=key is not None,
            downlinks=activity.downlinks,
        )


def _address(value: bytes | None) -> str | None:
    """Return an address that a header names, None where it is none that may be shown: its text is the sender's."""
    text = "" if value is None else value.decode("latin-1")
    return text if len(text) <= MAX_DOWNLINK_URL and _ADDRESS.fullmatch(text) else None
