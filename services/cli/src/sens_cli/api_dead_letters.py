"""The dead letters of an API key's tenant, over the API."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sens_cli.api import Api

_PAGE: Final = 1000
_REPLAY_PAGE: Final = 5000
_DELETE_PAGE: Final = 10_000


class DeadLettersOverApi:
    """Dead letters of the tenant that the key belongs to, those that the filters name."""

    def __init__(self, api: Api, filters: Mapping[str, str | None]) -> None:
        self._api = api
        self._filters = filters

    def list(self, limit: int) -> list[dict[str, Any]]:
        """Return so many dead letters, newest first."""
        return list(self._api.pages("dead-letters", "dead_letters", self._filters, limit=limit, page=_PAGE))

    def get(self, letter_id: int) -> dict[str, Any]:
        """Return one dead letter with its payload."""
        found: dict[str, Any] = self._api.get(f"dead-letters/{letter_id}")
        return found

    def replay(self, ids: Sequence[int], progress: Callable[[int, int, int], None]) -> None:
        """Replay these dead letters, or all that are meant; tell how many were replayed, are incomplete, and remain."""
        for letter_id in ids:
            self._api.post(f"dead-letters/{letter_id}/replay")
            progress(1, 0, 0)
        cursor: str | None = None
        while not ids:
            done = self._api.post("dead-letters/replay", {**self._filters, "limit": _REPLAY_PAGE, "cursor": cursor})
            progress(done["replayed"], done["incomplete"], done["remaining"])
            cursor = done["next"]
            if cursor is None:
                break

    def delete(self, ids: Sequence[int]) -> int:
        """Delete these dead letters, or all that are meant and there now; return how many."""
        for letter_id in ids:
            self._api.delete(f"dead-letters/{letter_id}")
        if ids:
            return len(ids)
        deleted = 0
        everything = "true" if all(value is None for value in self._filters.values()) else None
        # What comes meanwhile is not meant.
        before = self._filters["before"] or datetime.now(UTC).isoformat().replace("+00:00", "Z")
        while True:
            answer = self._api.delete(
                "dead-letters", {**self._filters, "before": before, "all": everything, "limit": _DELETE_PAGE}
            )
            deleted += int(answer["deleted"])
            if not answer["deleted"] or not answer["remaining"]:
                return deleted
