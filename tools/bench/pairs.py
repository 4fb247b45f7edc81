"""Two programs, or two versions of one, measured in turn again and again: what the machine can do changes within minutes, ratios less."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tools.bench import telegraf
from tools.bench.compared import TELEGRAF
from tools.bench.figures import EndToEnd, Pairs, Rate
from tools.bench.load import Shape
from tools.bench.machine import checkout_commit
from tools.bench.measured_path import MeasuredPath
from tools.bench.runs import end_to_end, sustained
from tools.stack.path import Stack, StackError


class Side[R: Rate](NamedTuple):
    """One of the two.

    Attributes:
        name: For people.
        measure: Gives the figures of a load.
        load: The load of which most gets through.
    """

    name: str
    measure: Callable[[Shape], R]
    load: Shape


def in_turn(payload: str, ours: Side[EndToEnd], other: Side[Rate] | Side[EndToEnd], count: int) -> Pairs:
    """Measure so many pairs; who begins changes from pair to pair."""
    found: list[EndToEnd] = []
    others: list[Rate] = []
    for number in range(count):
        if number % 2:
            others.append(other.measure(other.load))
        found.append(ours.measure(ours.load))
        if number % 2 == 0:
            others.append(other.measure(other.load))
    return Pairs(payload, ours.name, other.name, found, others)


def against_telegraf(path: MeasuredPath, shape: Shape, count: int, *, keyed: bool) -> Pairs:
    """Measure pairs with Telegraf, whose table may have a unique key.

    Raises:
        StackError: One of them does not start, or does not store everything.
    """
    path.warm_up(shape)
    ours = sens(path, shape)
    settings = telegraf.fastest(path, shape)
    if keyed:
        settings = settings._replace(keyed=True)
    load = telegraf.sustained_load(path, shape, settings)

    def measure(load: Shape) -> Rate:
        with telegraf.alone(path, shape):
            return telegraf.measure(path, load, settings)

    return in_turn(shape.payload, ours, Side(f"{TELEGRAF}{', unique key' * keyed}", measure, load), count)


def against_checkout(path: MeasuredPath, other: MeasuredPath, folder: Path, shape: Shape, count: int) -> Pairs:
    """Measure pairs with another checkout of this repository, whose path waits while this one's is measured."""
    for each in (path, other):
        each.warm_up(shape)
    theirs = sens(other, shape, checkout_commit(folder))
    return in_turn(shape.payload, sens(path, shape), theirs, count)


def sens(path: MeasuredPath, shape: Shape, name: str = "") -> Side[EndToEnd]:
    """Return SENS, with the load of which most gets through."""
    measure = path.with_empty_tables(end_to_end)
    return Side(name or checkout_commit(Path()), measure, sustained(measure, shape))


@contextlib.contextmanager
def other_path(folder: Path, postgres_programs: Path | None) -> Iterator[MeasuredPath]:
    """Run the path of another checkout, whose environment is in its folder ``.venv``.

    Raises:
        StackError: There is none, or something did not start.
    """
    python = folder / ".venv" / "bin" / "python"
    if not python.exists():
        raise StackError(f"{folder} is not a checkout with an environment: there is no {python}")
    with Stack.running(
        "mosquitto", postgres_programs=postgres_programs, tenants=("bench",), python=python.absolute()
    ) as stack:
        yield MeasuredPath(stack)
