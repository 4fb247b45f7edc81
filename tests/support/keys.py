"""API keys in memory."""

from sens_common.errors import UnavailableError
from sens_platform_api.caller import Caller


class MemoryKeys:
    """Valid keys, as `authenticator.Keys`; those that were revoked or have expired are not there.

    Attributes:
        callers: By the hash of their key.
        questions: How often somebody asked for a caller.
        noted: Ids of keys whose use was noted.
        problem: Why no use can be noted.
    """

    def __init__(self, callers: dict[bytes, Caller] | None = None) -> None:
        self.callers = callers or {}
        self.questions = 0
        self.noted: list[int] = []
        self.problem: UnavailableError | None = None

    async def caller(self, key_hash: bytes) -> Caller | None:
        self.questions += 1
        return self.callers.get(key_hash)

    async def note_use(self, key_id: int) -> None:
        if self.problem is not None:
            raise self.problem
        self.noted.append(key_id)
