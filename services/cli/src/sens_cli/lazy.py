"""A group of commands that are imported when they are called: most of a command's start would be spent on the other ones."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperGroup


class Place(NamedTuple):
    """Where a command is defined.

    Attributes:
        name: ``module:attribute`` below ``sens_cli.commands``; a function, or a `typer.Typer` with commands of its own.
        panel: Heading in the help.
    """

    name: str
    panel: str


class LazyGroup(TyperGroup):
    """Finds its commands by a table.

    Attributes:
        places: The commands by name, in the order of the help.
    """

    places: ClassVar[Mapping[str, Place]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands(self.places)


class _Commands(dict[str, Any]):
    """Commands by name; typer, which keeps the class of a command to itself, makes one when it is looked up."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        super().__init__(dict.fromkeys(places))
        self._places = places

    def __getitem__(self, name: str) -> Any:
        command = super().__getitem__(name)
        if command is None:
            command = self[name] = _command(name, self._places[name])
        return command

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name in self else default  # noqa: SIM401 - which would call this again


def _command(name: str, place: Place) -> Any:
    module, _, attribute = place.name.partition(":")
    found = getattr(import_module(f"sens_cli.commands.{module}"), attribute)
    app = typer.Typer(rich_markup_mode="rich", add_completion=False)
    if isinstance(found, typer.Typer):
        app.add_typer(found, name=name, rich_help_panel=place.panel)
        return typer.main.get_group(app).commands[name]
    app.command(name, rich_help_panel=place.panel)(found)
    return typer.main.get_command(app)
