"""What a run has shown: as JSON, and as the table in the documentation."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

COLUMNSTORE: Final = "runs of the columnstore's policies"
DROPPED: Final = "partitions dropped"
_BEGIN: Final = "<!-- scripts/torture --table: begin -->\n"
_END: Final = "<!-- scripts/torture --table: end -->"


@dataclass
class Group:
    """Faults of one kind.

    Attributes:
        times: How often they came.
        messages: How many messages were acknowledged while they lasted and until the next one.
        settled_seconds: Of those after which everything came to rest before the next one: time from a fault's end until then.
    """

    times: int = 0
    messages: int = 0
    settled_seconds: list[float] = field(default_factory=list)


@dataclass
class Result:
    """A run.

    Attributes:
        seed: Repeats it.
        broker: Which one.
        rate: Messages a second.
        faults: How many came.
        seconds: How long it took.
        acknowledged: How many messages the broker acknowledged.
        uncertain: How many more may or may not have reached it.
        stored: How many are in the database.
        duplicate: How many more came to the database again, to no effect.
        dead_lettered: How many are in the dead letters.
        broker_lost: How many the broker had acknowledged and has lost, being killed: the platform never acknowledged them.
        problems: What must not be; empty when all is well.
        groups: By name.
        seen: By fault and worker: what readiness and log said.
        database: Which one, with its version.
        maintenance: What the database did meanwhile beside the storing, and errors that the faults made of it, with how often each came.
    """

    seed: int
    broker: str
    rate: float
    faults: int = 0
    seconds: float = 0
    acknowledged: int = 0
    uncertain: int = 0
    stored: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    broker_lost: int = 0
    problems: list[str] = field(default_factory=list)
    groups: dict[str, Group] = field(default_factory=dict)
    seen: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    database: str = "PostgreSQL"
    maintenance: dict[str, int] = field(default_factory=dict)

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what `write` has written.

        Raises:
            OSError: The file can't be read.
            ValueError: It is not a result.
        """
        try:
            values = json.loads(file.read_text(encoding="utf-8"))
            groups = {name: Group(**group) for name, group in values.pop("groups").items()}
            return cls(**values, groups=groups)
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} is not a result of scripts/torture") from error


def table(results: Iterable[Result]) -> str:
    """Return runs and their faults as Markdown."""
    results = list(results)
    lines = [
        (
            "| Broker | Database | Seed | Faults | Minutes | Messages acknowledged | Stored | Dead-lettered | Came again |"
            " Columnstore runs | Partitions dropped | Lost, doubled or changed |"
        ),
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
        *(
            f"| {result.broker} | {result.database} | {result.seed} | {result.faults:,} | {result.seconds / 60:.0f} | {result.acknowledged:,} |"
            f" {result.stored:,} | {result.dead_lettered:,} | {result.duplicate:,} |"
            f" {result.maintenance.get(COLUMNSTORE, 0):,} | {result.maintenance.get(DROPPED, 0):,} | {_verdict(result)} |"
            for result in results
        ),
        "",
        "| Fault | Times | Messages meanwhile | At rest again after, median | longest |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in sorted({name for result in results for name in result.groups}):
        groups = [result.groups[name] for result in results if name in result.groups]
        seconds = sorted(second for group in groups for second in group.settled_seconds)
        times, messages = sum(group.times for group in groups), sum(group.messages for group in groups)
        middle, longest = (f"{seconds[len(seconds) // 2]:.1f} s", f"{seconds[-1]:.1f} s") if seconds else ("-", "-")
        lines.append(f"| {name[0].upper()}{name[1:]} | {times:,} | {messages:,} | {middle} | {longest} |")
    return "\n".join(lines) + "\n"


def _verdict(result: Result) -> str:
    if result.problems:
        return "; ".join(result.problems)
    return f"none; {result.broker_lost:,} lost by the killed broker" if result.broker_lost else "none"


def insert(page: Path, text: str) -> None:
    """Put the table into a page, between its marks.

    Raises:
        ValueError: The page has no marks.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the table: {_BEGIN.strip()} … {_END}")
    page.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")
