"""Writes docs/reference from the code: ``python -m tools.reference [--check]``. Called by scripts/generate-reference."""

import os
import sys
from pathlib import Path
from typing import Final

from tools.reference.api import api_page
from tools.reference.command_line import command_line_page
from tools.reference.metrics import metrics_page
from tools.reference.settings import settings_page
from tools.reference.wire import dead_letters_page, payload_page

FOLDER: Final = Path(__file__).parents[2] / "docs" / "reference"
GENERATED: Final = "<!-- Written by scripts/generate-reference from the code; change the code instead. -->"


def pages() -> dict[str, str]:
    """Return every generated page by its file name."""
    # The pages must not depend on who makes them.
    for name in [name for name in os.environ if name.startswith("SENS_")]:
        del os.environ[name]
    made = {
        "api.md": api_page(),
        "command-line.md": command_line_page(),
        "settings.md": settings_page(),
        "metrics.md": metrics_page(),
        "dead-letter-reasons.md": dead_letters_page(),
        "payload-limits.md": payload_page(),
    }
    return {name: f"{GENERATED}\n\n{text}\n" for name, text in made.items()}


def main() -> int:
    """Write the pages, or compare them; return the exit code."""
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        print("usage: scripts/generate-reference [--check]", file=sys.stderr)
        return 2
    made = pages()
    present = {path.name for path in FOLDER.glob("*.md")} - {"index.md"}
    different = sorted(present - made.keys())
    for name, text in made.items():
        path = FOLDER / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            different.append(name)
            if not check:
                FOLDER.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if check and different:
        print(f"docs/reference differs from the code in: {', '.join(different)}; run ./scripts/generate-reference")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
