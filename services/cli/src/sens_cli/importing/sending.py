"""Sends the lines of an import to the API, in batches, and keeps how far it is."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from sens_cli.api import RefusedByApiError
from sens_cli.importing.files import Line
from sens_cli.importing.progress import Progress
from sens_common.errors import UnavailableError

BATCH_LINES: Final = 500
_BATCH_CHARACTERS: Final = 100_000
"""Of payloads; the API's bodies may have 512 KiB, and a character up to 6 bytes in JSON."""
_WAITS: Final = (1, 2, 4, 8, 16, 30, 30)
_TOO_MANY_REQUESTS: Final = 429
_TURN_SECONDS: Final = 2.0
"""After which it is asked again whether the lines may go."""


class Sends(Protocol):
    """The API."""

    def post_document(self, path: str, document: Any) -> Any:
        """Ask for something to be done with a JSON document, and return the answer."""


class Target(NamedTuple):
    """How the API reads lines.

    Attributes:
        source: Name of a source, None for native payloads.
        topic: That messages of the source were published to.
    """

    source: str | None = None
    topic: str | None = None


class RefusedLine(NamedTuple):
    """Why a line is not imported."""

    line: int
    reason: str
    detail: str


def batches(lines: Iterable[Line]) -> Iterator[list[Line]]:
    """Yield lines that are sent together."""
    together: list[Line] = []
    size = 0
    for line in lines:
        if together and (len(together) == BATCH_LINES or size + len(line.payload) > _BATCH_CHARACTERS):
            yield together
            together, size = [], 0
        together.append(line)
        size += len(line.payload)
    if together:
        yield together


def document(name: str, target: Target, lines: Iterable[Line], *, dry_run: bool = False) -> dict[str, Any]:
    """Return the body of a request."""
    return {
        "name": name,
        "source": target.source,
        "topic": target.topic,
        "dry_run": dry_run,
        "lines": [{"line": line.number, "device": line.device, "payload": line.payload} for line in lines],
    }


def send_lines(
    api: Sends,
    lines: Iterable[Line],
    target: Target,
    progress: Progress,
    state: Path,
    *,
    refused: Callable[[RefusedLine], None],
    tell: Callable[[Progress], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Send the lines that were not answered yet; the state is written after each answer.

    Whoever ends this at any moment goes on by doing it again: lines whose answer was not kept are sent again, and are duplicates then.

    Raises:
        UnavailableError: The API can't be reached, for longer than a minute.
        RefusedByApiError: It refuses the whole import.
    """
    for batch in batches(itertools.islice(lines, progress.lines, None)):
        mine = [RefusedLine(line.number, "unreadable_line", line.refusal) for line in batch if line.refusal is not None]
        sent = [line for line in batch if line.refusal is None]
        answer: dict[str, Any] = (
            _posted(api, document(progress.identity, target, sent), sleep) if sent else {"accepted": 0, "refused": []}
        )
        theirs = [RefusedLine(each["line"], each["reason"], each["detail"]) for each in answer["refused"]]
        progress.lines += len(batch)
        progress.accepted += answer["accepted"]
        progress.refused += len(mine) + len(theirs)
        progress.write(state)
        for each in sorted(mine + theirs):
            refused(each)
        tell(progress)
    progress.complete = True
    progress.write(state)


def _posted(api: Sends, body: dict[str, Any], sleep: Callable[[float], None]) -> Any:
    """Send lines; while the platform is busy they wait for their turn, however long that is."""
    waits = iter(_WAITS)
    while True:
        try:
            return api.post_document("imports", body)
        except UnavailableError:
            wait = next(waits, None)
            if wait is None:
                raise
            sleep(wait)
        except RefusedByApiError as error:
            if error.status != _TOO_MANY_REQUESTS:
                raise
            sleep(_TURN_SECONDS)
