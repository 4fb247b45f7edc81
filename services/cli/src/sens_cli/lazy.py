"""A group of commands that are imported when they are called: most of a command's start would be spent on the other ones.

Other packages add commands by entry points, so that `sens` has the administration where the API's package is installed, and needs
none of it elsewhere.
"""

from collections.abc import Iterator, Mapping, MutableMapping
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperGroup


class Definition(NamedTuple):
    """Where a command is defined.

    Attributes:
        module: Name of the module.
        attribute: A function of it, or a `typer.Typer` with commands of its own.
        panel: Heading in the help.
    """

    module: str
    attribute: str
    panel: str


class LazyGroup(TyperGroup):
    """Finds its commands by a table, and by entry points.

    Attributes:
        definitions: The commands by name, in the order of the help.
        entry_points: Group of the entry points of further commands.
        panel: Heading of these in the help.
    """

    definitions: ClassVar[Mapping[str, Definition]] = {}
    entry_points: ClassVar[str]
    panel: ClassVar[str]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(self.definitions, self.entry_points, self.panel)


class _Commands(MutableMapping[str, Any]):
    """Commands by name; typer, which keeps the class of a command to itself, makes one when it is looked up."""

    def __init__(self, definitions: Mapping[str, Definition], entry_points: str, panel: str) -> None:
        self._definitions = definitions
        self._entry_points = entry_points
        self._panel = panel
        self._made: dict[str, Any] = {}

    @cached_property
    def _added(self) -> dict[str, Definition]:
        from importlib.metadata import entry_points  # noqa: PLC0415 - looks at every installed package

        found = sorted(entry_points(group=self._entry_points))
        return {each.name: Definition(each.module, each.attr, self._panel) for each in found}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            definition = self._definitions.get(name) or self._added[name]
            self._made[name] = _command(name, definition)
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        raise TypeError("commands are not taken away")

    def __iter__(self) -> Iterator[str]:
        yield from self._definitions
        yield from self._added

    def __len__(self) -> int:
        return len(self._definitions) + len(self._added)


def _command(name: str, definition: Definition) -> Any:
    found = getattr(import_module(definition.module), definition.attribute)
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=name, rich_help_panel=definition.panel)
        return typer.main.get_group(app).commands[name]
    app.command(name, rich_help_panel=definition.panel)(found)
    return typer.main.get_command(app)
