"""What people see of ``sens up``: plain lines, or on a terminal also a live line at the bottom."""

import sys
from collections.abc import Sequence
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from sens_common.command_line.instance import Instance

READY_LINE = "SENS Platform is ready"
_NAME_WIDTH = 22


class PlainDisplay:
    """One plain line per event, for logs and pipes."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout

    def open(self) -> None:
        """Begin."""

    def close(self) -> None:
        """End."""

    def starting(self, name: str) -> None:
        """Say that a component or step begins."""
        self._print(f"starting {name}")

    def ready(self, name: str, seconds: float, detail: str) -> None:
        """Say that it is ready."""
        self._print(f"ready {name} in {seconds:.1f} s{f': {detail}' if detail else ''}")

    def notice(self, text: str, *, warning: bool = False) -> None:
        """Say something people should know."""
        self._print(f"warning: {text}" if warning else text)

    def addresses(self, instance: Instance, key: str) -> None:
        """Say where everything is, ending with the line that says that the start is complete."""
        for name, value in address_lines(instance, key):
            self._print(f"{name}: {value}")
        self._print(READY_LINE)

    def live(self, text: str, warnings: Sequence[str] = ()) -> None:
        """Show the numbers of now: not here, where each would be a line for ever."""

    def _print(self, text: str) -> None:
        try:
            print(text, file=self._out, flush=True)
        except BrokenPipeError:  # who read our lines has gone; the platform goes on
            self._out = open("/dev/null", "w", encoding="utf-8")  # noqa: PTH123, SIM115 - for the rest of the process


class TerminalDisplay:
    """Coloured lines, and a line at the bottom that says what is under way, later what flows."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._under_way: list[str] = []

    def open(self) -> None:
        """Begin."""
        self._live.start()

    def close(self) -> None:
        """End: the live line goes, the others stay."""
        self._live.stop()

    def starting(self, name: str) -> None:
        """Say that a component or step begins."""
        self._under_way.append(name)
        self._show_under_way()

    def ready(self, name: str, seconds: float, detail: str) -> None:
        """Say that it is ready."""
        if name in self._under_way:
            self._under_way.remove(name)
        self._console.print(
            f"[green]✓[/] {name:<{_NAME_WIDTH}} [dim]{seconds:5.1f} s[/]  {escape(detail)}", soft_wrap=True
        )
        self._show_under_way()

    def notice(self, text: str, *, warning: bool = False) -> None:
        """Say something people should know."""
        self._console.print(f"[yellow]![/] {escape(text)}" if warning else escape(text), soft_wrap=True)
        self._live.refresh()

    def addresses(self, instance: Instance, key: str) -> None:
        """Say where everything is."""
        self._console.print()
        for name, value in address_lines(instance, key):
            self._console.print(f"[bold]{name:<16}[/] {escape(value)}", soft_wrap=True)
        self._console.print(f"\n[bold green]{READY_LINE}[/] [dim]· Ctrl-C stops it[/]\n")

    def live(self, text: str, warnings: Sequence[str] = ()) -> None:
        """Show the numbers of now, and what is wrong now."""
        lines = Text(text, style="cyan", no_wrap=True, overflow="ellipsis")
        for warning in warnings:
            lines.append(f"\n! {warning}", style="yellow")
        self._live.update(lines, refresh=True)

    def _show_under_way(self) -> None:
        text = f"starting {', '.join(self._under_way)} …" if self._under_way else ""
        self._live.update(Text(text, style="dim", no_wrap=True, overflow="ellipsis"), refresh=True)


def address_lines(instance: Instance, key: str) -> list[tuple[str, str]]:
    """Return names and addresses for people, ending with something to try."""
    host, mqtt = instance.host, instance.reachable_mqtt_host
    return [
        ("API", f"{instance.api_url}/api/v1 (reference: {instance.docs_url}/reference/api/)"),
        ("Documentation", instance.docs_url),
        ("MQTT", f"mqtt://{mqtt}:{instance.ports['mqtt']} (3.1.1 and 5)"),
        (
            "HTTP ingestion",
            f"http://{host}:{instance.ports['http_ingestion']} (a key for it: sens keys create --tenant {instance.tenant} --ingest)",
        ),
        ("NATS", f"nats://{host}:{instance.ports['nats']}"),
        (
            "PostgreSQL",
            f"{host}:{instance.ports['postgres']} (a login for psql or Grafana: sens logins create --tenant {instance.tenant})",
        ),
        ("API key", f"{key} (tenant {instance.tenant})"),
        ("Try", f"curl -H 'Authorization: Bearer {key}' {instance.api_url}/api/v1/devices"),
    ]
