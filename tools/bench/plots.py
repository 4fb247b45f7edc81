"""The figures as drawings (SVG), readable on a light and on a dark page."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.bench.figures import Results
from tools.bench.markdown import NAMES
from tools.bench.medians import cost

_GREY: Final = "#888888"
_STYLE: Final[dict[str, Any]] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "sens",  # the same figures give the same file
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _GREY,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GREY,
    "grid.alpha": 0.25,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "legend.frameon": False,
    "savefig.transparent": True,
}


def latency(results: Results) -> Figure | None:
    """Draw percentiles by rate."""
    if not results.latency:
        return None
    figure, (axes,) = _figure(1)
    for one in results.latency:
        labels = ["max" if at == "100" else f"p{at}" for at in one.milliseconds]
        axes.plot(labels, list(one.milliseconds.values()), marker="o", markersize=4, label=f"{one.rate:,.0f} msg/s")
    axes.set(yscale="log", ylabel="publish to visible, ms")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.legend()
    return figure


def scale(results: Results) -> Figure | None:
    """Draw what a message costs against devices and rows."""
    if not (results.devices or results.rows):
        return None
    figure, (left, right) = _figure(2)
    counts = [one.devices for one in results.devices]
    left.plot(counts, [cost(one.first) for one in results.devices], marker="o", label="new devices")
    left.plot(counts, [cost(one.again) for one in results.devices], marker="o", label="known devices")
    left.set(xscale="log", xlabel="devices", ylabel="CPU a message, µs")
    left.legend()
    right.plot([one.rows for one in results.rows], [cost(one.load) for one in results.rows], marker="o")
    right.set(xscale="log", xlabel="values in the database before", ylabel="CPU a message, µs")
    _from_zero(left, right)
    return figure


def backlog(results: Results) -> Figure | None:
    """Draw memory and waiting messages in the course of an outage."""
    if not results.backlog:
        return None
    figure, all_axes = _figure(len(results.backlog))
    for axes, one in zip(all_axes, results.backlog, strict=True):
        seconds = [sample.seconds for sample in one.samples]
        for process, name in NAMES.items():
            if process in one.peak_megabytes:
                # A process that does not run has no memory, not the one it had.
                memory = [sample.megabytes.get(process, float("nan")) for sample in one.samples]
                axes.plot(seconds, memory, label=name)
        axes.set(xlabel="seconds", ylabel="memory, MB", title=f"{NAMES[one.away]} away")
        waiting = axes.twinx()
        waiting.fill_between(seconds, [sample.waiting / 1e6 for sample in one.samples], color=_GREY, alpha=0.2)
        waiting.set(ylabel="waiting, million messages")
        waiting.grid(visible=False)
        _from_zero(axes, waiting)
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(NAMES))
    return figure


def _from_zero(*all_axes: Axes) -> None:
    for axes in all_axes:
        axes.set_ylim(0, 1.1 * axes.get_ylim()[1])


def _figure(columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4 + 4 * columns, 3.6), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])


DRAWINGS: Final[Mapping[str, Callable[[Results], Figure | None]]] = MappingProxyType(
    {"latency": latency, "scale": scale, "backlog": backlog}
)


def draw(results: Results, folder: Path) -> list[str]:
    """Write a file for each drawing that there are figures for; return the names of those."""
    drawn = []
    with mpl.rc_context(_STYLE):  # type: ignore[arg-type]
        for name, drawing in DRAWINGS.items():
            figure = drawing(results)
            if figure is not None:
                figure.savefig(folder / f"performance-{name}.svg", metadata={"Date": None, "Creator": None})
                drawn.append(name)
    return drawn
