"""What is wrong with a part of a service, by key: one problem does not hide another, and solving one does not hide it either."""

from collections.abc import Awaitable, Callable

Check = Callable[[], Awaitable[str | None]]
"""A readiness check: returns None when all is well, else a sentence that says what is wrong."""


class Problems:
    """The problems of one part: each has a key, for example a lane's name, and stands until its owner clears it.

    >>> problems = Problems()
    >>> problems.set("lane 0", "the database does not answer")
    >>> problems.set("lane 1", "the log does not answer")
    >>> problems.clear("lane 1")
    >>> problems.problem
    'the database does not answer'
    """

    def __init__(self) -> None:
        self._by_key: dict[str, str] = {}

    def set(self, key: str, problem: str) -> None:
        """Say what is wrong."""
        self._by_key[key] = problem

    def clear(self, key: str) -> None:
        """Say that it is no longer wrong; no effect where nothing was."""
        self._by_key.pop(key, None)

    @property
    def problem(self) -> str | None:
        """All that is wrong in one line, each sentence once, the oldest first; None when all is well."""
        return "; ".join(dict.fromkeys(self._by_key.values())) or None

    async def check(self) -> str | None:
        """Answer as a readiness check."""
        return self.problem
