"""``sens status`` and ``sens version``."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import typer

from sens_common.command_line.instance import Instance
from sens_common.command_line.options import DataDir, Json
from sens_common.errors import SensError, UnavailableError
from sens_common.hops import amount

_TIMEOUT_SECONDS: Final = 3.0
_RATE_SECONDS: Final = 1.0
_OUTCOMES: Final = {
    "stored": "stored",
    "duplicate": "duplicate",
    "dead_lettered": "dead-lettered",
    "discarded": "discarded",
    "without_measurements": "without measurements",
}


def status(data_dir: DataDir, as_json: Json = False) -> None:
    """Show the running instance: its components, why one is not ready, where messages wait, and what the first tenant has.

    Exits with 0 when all are ready, with 1 when one is not, with 69 when nothing runs.
    """
    from sens_common.command_line.instance import find_instance
    from sens_common.command_line.output import print_json, print_table

    instance = find_instance(data_dir, "or name its data folder with --data-dir")
    found = [
        *_stores(instance),
        *_ask_all(instance.operations),
    ]
    if all(not each["ready"] for each in found):
        raise UnavailableError(f"the instance of {data_dir} does not answer: it was ended; start it again with sens up")
    tenant = _overview(data_dir)
    if as_json:
        document = {"version": instance.version, "process": instance.process, "components": found, "tenant": tenant}
        print_json(document)
    else:
        typer.echo(f"SENS Platform {instance.version}, process {instance.process}, data in {data_dir}\n")
        rows = [
            (each["name"], "ready" if each["ready"] else "not ready", each["address"], each["version"], each["detail"])
            for each in found
        ]
        print_table(("COMPONENT", "STATE", "ADDRESS", "VERSION", "DETAIL"), rows, empty="")
        for each in found:
            if each.get("flow"):
                typer.echo(f"\n{each['name']}: {each['flow']}")
        if tenant is not None:
            typer.echo(f"\n{_in_words(tenant)}")
    if not all(each["ready"] for each in found):
        raise typer.Exit(1)


def _overview(data_dir: Path) -> dict[str, Any] | None:
    """Return what the first tenant has, with its messages per second; None where the API does not tell."""
    from sens_cli.api import Api
    from sens_cli.target import find_target

    try:
        api = Api(find_target(data_dir, None, None))
        before, began = api.get("overview"), time.monotonic()
        time.sleep(_RATE_SECONDS)
        found: dict[str, Any] = api.get("overview")
        seconds = time.monotonic() - began
    except SensError:
        return None
    came = found["messages_today"]["received"] - before["messages_today"]["received"]
    return found | {"messages_per_second": round(max(0, came) / seconds, 1)}  # at midnight the count starts at 0 again


def _in_words(tenant: dict[str, Any]) -> str:
    today, letters = tenant["messages_today"], tenant["dead_letters"]
    parts = [
        f"{amount(tenant['devices']['count'], 'device')} with {amount(tenant['metrics']['count'], 'metric')}",
        f"{tenant['messages_per_second']:g} messages per second",
        "today " + ", ".join(f"{today[outcome]:,} {words}" for outcome, words in _OUTCOMES.items()),
        f"{amount(letters['count'], 'dead letter')} kept" + (" (sens dead-letters list)" if letters["count"] else ""),
    ]
    stored = tenant["stored_bytes"]
    if stored["limit"]:
        parts.append(f"{stored['bytes'] / stored['limit']:.0%} of its limit of stored bytes used (sens retention show)")
    if tenant["retention_waiting_since"] is not None:
        parts.append(f"retention has been waiting for the rollups since {tenant['retention_waiting_since']}")
    return f"tenant {tenant['tenant']}: {'; '.join(parts)}"


def _stores(instance: Instance) -> list[dict[str, Any]]:
    found = []
    for name, field in (("postgresql", "postgres"), ("nats", "nats")):
        port = instance.ports[field]
        problem = _connect(instance.host, port)
        found.append(
            {
                "name": name,
                "ready": problem is None,
                "address": f"{instance.host}:{port}",
                "version": None,
                "detail": problem,
            }
        )
    return found


def _connect(host: str, port: int) -> str | None:
    import socket

    try:
        with socket.create_connection((host, port), timeout=_TIMEOUT_SECONDS):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _ask_all(operations: dict[str, str]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(max_workers=max(1, len(operations))) as pool:
        return list(pool.map(lambda item: _ask(*item), operations.items()))


def _ask(name: str, url: str) -> dict[str, Any]:
    from sens_cli.http_client import FAILURES, get

    answer: dict[str, Any] = {
        "name": name,
        "ready": False,
        "address": url,
        "version": None,
        "detail": None,
        "flow": None,
    }
    try:
        answer["version"] = json.loads(get(f"{url}/version", seconds=_TIMEOUT_SECONDS).body).get("version")
        ready = get(f"{url}/readyz", seconds=_TIMEOUT_SECONDS)
        document = json.loads(ready.body)
        answer["ready"] = ready.status == HTTPStatus.OK
        failed = [f"{check}: {text}" for check, text in document.get("checks", {}).items() if text != "ok"]
        answer["detail"] = "; ".join(failed) or None
        answer["flow"] = document.get("flow")
    except (*FAILURES, ValueError, AttributeError) as error:
        answer["detail"] = str(error) or type(error).__name__
    return answer


def version(as_json: Json = False) -> None:
    """Print the product's version."""
    from sens_common.version import product_version

    if as_json:
        from sens_common.command_line.installation import product_commit
        from sens_common.command_line.output import print_json

        print_json({"name": "sens", "version": product_version(), "product_commit": product_commit()})
    else:
        typer.echo(product_version())
