"""What a command of the administration is."""

import argparse
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from sens_platform_api.settings import AdministrationSettings


class Answer(NamedTuple):
    """What a command has to say: one document for programs, lines for people."""

    document: object
    lines: Sequence[str]


type Command = Callable[[AdministrationSettings, argparse.Namespace], Awaitable[Answer]]
