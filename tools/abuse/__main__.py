"""Plays one tenant's mistakes against a running platform, and shows what another tenant notices of them."""

import argparse
import asyncio
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from sens_common.command_line.installation import default_data_dir
from sens_common.command_line.output import print_table
from sens_common.errors import SensError
from tools.abuse.attacks import ATTACKS, Attack, history
from tools.abuse.bystander import Bystander, Probe
from tools.abuse.target import Target, find

PROMISED_SECONDS: Final = 2.0
"""Another tenant's value is stored and read within this time, whatever one tenant does."""
_RECOVERY_SECONDS: Final = 5.0
_PREPARING_SECONDS: Final = 300.0


class Row(NamedTuple):
    """What was seen during an attack.

    Attributes:
        attack: Its name.
        outcome: What came of it.
        probes: Of the bystander.
        peak_megabytes: Most memory of the API meanwhile.
        megabytes: Its memory afterwards.
    """

    attack: str
    outcome: str
    probes: list[Probe]
    peak_megabytes: float
    megabytes: float

    @property
    def failed(self) -> list[Probe]:
        """The bystander's values that were not read in time."""
        return [probe for probe in self.probes if probe.seconds is None or probe.seconds > PROMISED_SECONDS]


async def observe(target: Target, bystander: Bystander, attack: Attack) -> Row:
    """Play an attack, and return what was seen until some seconds after its end."""
    began = time.monotonic()
    playing = asyncio.create_task(attack.play(target), name=attack.name)
    peak = target.api_megabytes()
    while not playing.done():
        await asyncio.wait({playing}, timeout=0.5)
        peak = max(peak, target.api_megabytes())
    outcome = await playing
    await asyncio.sleep(_RECOVERY_SECONDS)
    return Row(attack.name, outcome, bystander.since(began), peak, target.api_megabytes())


async def play(target: Target, attacks: list[Attack]) -> list[Row]:
    """Play attacks one after the other."""
    bystander = Bystander(target)
    async with bystander.watching():
        sys.stderr.write(f"preparing: {await history(target)}\n")
        await _rest(bystander)
        rows = [await observe(target, bystander, Attack("nothing", _nothing))]
        for attack in attacks:
            sys.stderr.write(f"{attack.name} …\n")
            rows.append(await observe(target, bystander, attack))
        return rows


async def _rest(bystander: Bystander) -> None:
    """Wait until the history is stored, which the bystander's values show: they are read soon again."""
    began = time.monotonic()
    async with asyncio.timeout(_PREPARING_SECONDS):
        while not any(  # noqa: ASYNC110 - the bystander has no event for it
            probe.began > began and (probe.seconds or PROMISED_SECONDS) < PROMISED_SECONDS / 4
            for probe in bystander.probes
        ):
            await asyncio.sleep(0.5)


async def _nothing(_target: Target) -> str:
    await asyncio.sleep(5)
    return "-"


def cells(row: Row) -> tuple[str, ...]:
    """Return a row of the table."""
    seconds = [probe.seconds for probe in row.probes if probe.seconds is not None]
    return (
        row.attack,
        row.outcome,
        f"{len(row.probes)}",
        f"{statistics.median(seconds):.2f} s" if seconds else "-",
        f"{max(seconds):.2f} s" if seconds else "-",
        f"{len(row.failed)}",
        f"{row.peak_megabytes:.0f} MB",
        f"{row.megabytes:.0f} MB",
    )


COLUMNS: Final = ("ATTACK", "WHAT CAME OF IT", "PROBES", "MEDIAN", "SLOWEST", "LATE", "API, PEAK", "API, AFTER")


def main() -> None:
    """Read the options, play, and print the table; exit with 1 when the bystander was kept waiting."""
    parser = argparse.ArgumentParser(prog="scripts/abuse", description=__doc__)
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=default_data_dir(),
        help="data folder of a running `sens up` (default: %(default)s)",
    )
    parser.add_argument("--only", default="", help="only attacks whose name contains this text")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16_384)), hard))
    try:
        target = find(options.data_dir)
    except SensError as error:
        raise SystemExit(f"abuse: {error}") from error
    try:
        rows = asyncio.run(play(target, [attack for attack in ATTACKS if options.only in attack.name]))
    except TimeoutError as error:
        raise SystemExit(
            f"abuse: values need longer than {PROMISED_SECONDS / 4:g} s before anything was tried; is the machine busy?"
        ) from error
    if options.markdown:
        for line in (COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows)):
            sys.stdout.write(f"| {' | '.join(line)} |\n")
    else:
        print_table(COLUMNS, map(cells, rows), empty="")
    for row in rows:
        for problem in sorted({probe.problem for probe in row.probes if probe.problem is not None}):
            sys.stdout.write(f"{row.attack}: {problem}\n")
    sys.exit(any(row.failed for row in rows))


if __name__ == "__main__":
    main()
