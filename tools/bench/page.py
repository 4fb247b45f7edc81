"""Writes the figures into the documentation's page, between the lines that mark their sections."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tools.bench.figures import Results
from tools.bench.plots import draw
from tools.bench.report import SECTIONS, together

PAGE: Final = Path("docs/operations/performance.md")
ASSETS: Final = Path("docs/assets")
_BEGIN: Final = "<!-- figures: {} -->"
_END: Final = "<!-- end of figures -->"
_ALTERNATIVES: Final = {
    "latency": "Percentiles of the time from publish to visible, by load",
    "scale": "CPU time a message against the number of devices, and against the rows in the table",
    "backlog": "Memory of each process while messages wait and while they are stored",
}


def publish(all_results: Sequence[Results], page: Path = PAGE, assets: Path = ASSETS) -> None:
    """Write tables and drawings.

    Args:
        all_results: Each of another database; the drawings, and the machine, are those of the first.
        page: Where the tables go.
        assets: Where the drawings go.

    Raises:
        OSError: There is no such page.
        ValueError: A section is not marked on it.
    """
    shown = {name: together(all_results, section) or "Not measured." for name, section in SECTIONS.items()}
    drawn = draw(all_results[0], assets)
    for name, text in _ALTERNATIVES.items():
        image = f"![{text}](../assets/performance-{name}.svg){{ .drawing }}"
        shown[f"drawing of {name}"] = image if name in drawn else ""
    content = page.read_text(encoding="utf-8")
    for name, text in shown.items():
        begin = _BEGIN.format(name)
        if begin not in content:
            raise ValueError(f"{page} has no line {begin}")
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(_END)}", re.DOTALL)
        block = "\n".join([begin, *([text] if text else []), _END])
        content = pattern.sub(lambda _, block=block: block, content, count=1)  # type: ignore[misc]
    page.write_text(content, encoding="utf-8")
