"""Writes docs/reference from the code: ``python scripts/lib/reference.py [--check]``. Called by scripts/generate-reference."""

import ast
import importlib
import importlib.util
import inspect
import os
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import annotated_types
import typer
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.cli import get_docs_for_click

from sens_common.settings import ServiceSettings, variable

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = ROOT / "docs" / "reference"
SERVICES: Final = {
    "platform-api": "sens_platform_api",
    "mqtt-ingestion-worker": "sens_mqtt_ingestion_worker",
    "telemetry-worker": "sens_telemetry_worker",
    "mock-mqtt-broker": "sens_mock_mqtt_broker",
    "docs-site": "sens_docs_site",
}
GENERATED: Final = "<!-- Written by scripts/generate-reference from the code; change the code instead. -->"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


def code(text: str) -> str:
    """Return the text as Markdown code."""
    return f"`{text}`"


def module_of(package: str, name: str) -> ModuleType | None:
    """Return a service's module, None when it has none of that name."""
    if importlib.util.find_spec(f"{package}.{name}") is None:
        return None
    return importlib.import_module(f"{package}.{name}")


# Settings


def settings_page() -> str:
    """Return the page of all services' settings."""
    parts = [
        "# Settings",
        (
            "Services read their settings from environment variables and from nothing else. A wrong one ends the service with exit"
            " code 78 and a line that names the variable and what it accepts. A setting of a kind other than text is written as JSON"
            " writes it; a list is a JSON list."
        ),
        "`sens up` sets all of this for its services; these tables are for those who run them otherwise.",
    ]
    for service, package in SERVICES.items():
        module = module_of(package, "settings")
        classes = [
            member
            for member in (vars(module).values() if module else ())
            if isinstance(member, type)
            and issubclass(member, ServiceSettings)
            and member.__module__ == f"{package}.settings"
        ]
        parts += [f"## {service}"] if classes else []
        for settings in classes:
            rows = [
                [code(variable(path)), accepted(field), default, field.description or ""]
                for path, field, default in settings_of(settings, None)
            ]
            parts += [
                (inspect.getdoc(settings) or "").replace("``", "`"),
                table(["Variable", "Accepts", "Default", "Meaning"], rows),
            ]
    return "\n\n".join(parts)


def settings_of(
    model: type[BaseModel], defaults: BaseModel | None, groups: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo, str]]:
    """Yield each setting's path, field and default."""
    for name, field in model.model_fields.items():
        default = (
            getattr(defaults, name)
            if defaults is not None
            else field.get_default(call_default_factory=True, validated_data={})
        )
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from settings_of(
                field.annotation, default if isinstance(default, BaseModel) else None, (*groups, name)
            )
        else:
            yield (*groups, name), field, default_text(default)


def default_text(default: object) -> str:
    """Return a default as one writes it in the environment."""
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "none"
    if isinstance(default, bool):
        return code(str(default).lower())
    if isinstance(default, list | tuple):
        return code(str(list(default)).replace("'", '"'))
    return code(str(default)) if str(default) else "empty"


def accepted(field: FieldInfo) -> str:
    """Return what a setting accepts, in words."""
    kinds = [kind for kind in typing.get_args(field.annotation) or (field.annotation,) if kind is not type(None)]
    if typing.get_origin(field.annotation) is typing.Literal:
        return ", ".join(code(str(kind)) for kind in kinds)
    if typing.get_origin(field.annotation) in {list, tuple, set, frozenset}:
        return "JSON list"
    names = {bool: "`true`, `false`", int: "integer", float: "number", str: "text", SecretStr: "text, secret"}
    word = " or ".join(names.get(kind, getattr(kind, "__name__", str(kind))) for kind in kinds)
    return ", ".join([word, *limits(field)])


def limits(field: FieldInfo) -> Iterator[str]:
    """Yield the limits of a setting, in words."""
    lower = next((f"{limit.ge:,}" for limit in field.metadata if isinstance(limit, annotated_types.Ge)), None)
    above = next((f"{limit.gt:,}" for limit in field.metadata if isinstance(limit, annotated_types.Gt)), None)
    upper = next((f"{limit.le:,}" for limit in field.metadata if isinstance(limit, annotated_types.Le)), None)
    if lower and upper:
        yield f"{lower} to {upper}"
    elif lower:
        yield f"at least {lower}"
    elif above:
        yield f"above {above}" + (f", up to {upper}" if upper else "")
    elif upper:
        yield f"at most {upper}"
    for limit in field.metadata:
        if isinstance(limit, annotated_types.MaxLen):
            yield f"at most {limit.max_length:,} characters"
        pattern = getattr(limit, "pattern", None)
        if pattern:
            yield f"matching {code(str(pattern))}"


# Metrics


def metrics_page() -> str:
    """Return the page of all services' metrics."""
    parts = [
        "# Metrics",
        (
            "Every service answers `/metrics` on its operations port (the API on its own port) in Prometheus' text format. Labels"
            " take their values from bounded sets: tenants that an operator made, words in the code, HTTP's own. Beside these, each"
            " process tells its memory, processor time and open files (`process_*`)."
        ),
    ]
    for service, package in SERVICES.items():
        module = module_of(package, "metrics")
        if module is None:
            continue
        rows = []
        for member in vars(module).values():
            if isinstance(member, MetricWrapperBase):
                [description] = member.describe()
                name = f"{description.name}_total" if description.type == "counter" else description.name
                labels = ", ".join(map(code, member._labelnames))  # noqa: SLF001 - the library has no public name for them
                rows.append([code(name), description.type, labels, description.documentation])
        parts += [
            f"## {service}",
            (inspect.getdoc(module) or "").replace("``", "`"),
            table(["Name", "Type", "Labels", "Meaning"], rows),
        ]
    return "\n\n".join(parts)


# The wire


def attribute_docstrings(module: ModuleType, class_name: str | None = None) -> dict[str, str]:
    """Return the string below each assignment of a module or of one of its classes, by name."""
    tree: ast.Module | ast.ClassDef = ast.parse(inspect.getsource(module))
    if class_name is not None:
        tree = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    found = {}
    for node, following in zip(tree.body, tree.body[1:], strict=False):
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AnnAssign)
            else None
        )
        if (
            isinstance(target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            found[target.id] = inspect.cleandoc(str(following.value.value))
    return found


def dead_letters_page() -> str:
    """Return the page of dead-letter reasons."""
    module = importlib.import_module("sens_common.dead_letters")
    meanings = attribute_docstrings(module, "Reason")
    rows = [[code(str(reason)), meanings[reason.name].replace("\n", " ")] for reason in module.Reason]
    return "\n\n".join(
        [
            "# Dead-letter reasons",
            (
                "A message that can't be decoded or stored is kept with its raw bytes, a reason from this list, and a sentence that"
                " says what exactly was wrong. [How to look at dead letters and replay them](../guides/dead-letters.md)."
            ),
            table(["Reason", "Meaning"], rows),
        ]
    )


def payload_page() -> str:
    """Return the page of the payload's limits."""
    native = importlib.import_module("sens_telemetry_worker.decoders.native")
    times = importlib.import_module("sens_telemetry_worker.decoders.timestamps")
    ingestion = importlib.import_module("sens_mqtt_ingestion_worker.settings")
    names = importlib.import_module("sens_common.names")
    rows = [
        ["Payload", f"{native.MAX_PAYLOAD_BYTES:,} bytes", "`too_large`"],
        ["Objects inside each other, the outermost included", str(native.MAX_NESTING), "`too_large`"],
        ["Metrics in one object", f"{native.MAX_METRICS:,}", "`too_large`"],
        ["Objects in a backlog", f"{native.MAX_ENTRIES:,}", "`too_large`"],
        ["Values in one message", f"{native.MAX_READINGS:,}", "`too_large`"],
        [
            "A metric's name, joined",
            f"1 to {native.MAX_NAME_CHARACTERS} characters, none a control character",
            "`invalid_metric`",
        ],
        [
            "A text value",
            f"{native.MAX_TEXT_CHARACTERS:,} characters, none of them NUL",
            "`too_large`, `unsupported_value`",
        ],
        [
            "A device's clock",
            f"from 2000 on, at most {times.MAX_AHEAD // 3_600_000_000} hours ahead of the receipt",
            "`implausible_time`",
        ],
        ["A tenant's or device's name", code(names.NAME_PATTERN), "`invalid_topic`"],
    ]
    packet = ingestion.MqttSettings.model_fields["max_packet_bytes"].default
    return "\n\n".join(
        [
            "# Payload limits",
            (
                "[The payload's format](../guides/publishing.md) has these limits. What is over one goes to the dead letters with"
                " the reason shown."
            ),
            table(["What", "Limit", "Reason"], rows),
            (
                f"An MQTT packet of more than {packet:,} bytes (`SENS_MQTT__MAX_PACKET_BYTES`) does not reach the platform: the"
                " worker tells the broker so when it connects, and the broker drops larger ones (MQTT 5.0, section 3.1.2.11.4)."
            ),
        ]
    )


# The command line


def command_line_page() -> str:
    """Return the page of the command `sens`, as typer describes it."""
    command = typer.main.get_command(importlib.import_module("sens_cli.__main__").app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="sens")
    lines = ["# Command line", "", "In a clone the command is `.venv/bin/sens`. Every command has `--help`."]
    path = ""
    for line in text.splitlines()[1:]:
        if heading := re.fullmatch(r"#+ `(.+)`", line):
            path = heading[1]
        inner = re.fullmatch(
            r"\* `([a-z][a-z-]*)`(?:: .*)?", line
        )  # a command of the current one, with a text cut short
        if inner is not None:
            words = f"{path or 'sens'} {inner[1]}"
            lines.append(f"* [`{words}`](#{words.replace(' ', '-')})")
        elif not line.startswith("* `--help`"):
            lines.append(line)
    # Click's mark for lines that stay lines begins the examples.
    return re.sub(r"\x08\n((?:.+\n)+)", r"```sh\n\1```\n", "\n".join(lines)).replace("**Options**:\n\n\n", "").rstrip()


# The API


def api_page() -> str:
    """Return the page of the HTTP API, as its OpenAPI document describes it."""
    document: dict[str, Any] = importlib.import_module("sens_platform_api.app").openapi_document()
    parts = ["# HTTP API", document["info"].get("description", "")]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts += [f"## {method.upper()} {path}", operation.get("summary", ""), operation.get("description", "")]
            parts += parameters(document, operation)
            parts += [
                table(
                    ["Status", "Answer"],
                    [[status, answer_text(document, response)] for status, response in operation["responses"].items()],
                )
            ]
    return "\n\n".join(part for part in parts if part)


def parameters(document: dict[str, Any], operation: dict[str, Any]) -> list[str]:
    """Return the table of an operation's parameters and of the members of its body, if it has any."""
    rows = []
    for reference in operation.get("parameters", []):
        parameter = resolved(document, reference)
        schema = parameter["schema"]
        name = code(parameter["name"]) + (", required" if parameter.get("required") else "")
        example = parameter.get("example", schema.get("example", (schema.get("examples") or [None])[0]))
        rows.append(
            [
                name,
                parameter["in"],
                schema_text(document, schema),
                " ".join(
                    filter(None, [parameter.get("description", schema.get("description")), example_text(example)])
                ),
            ]
        )
    body = operation.get("requestBody")
    for content in resolved(document, body)["content"].values() if body else ():
        schema = resolved(document, content["schema"])
        for name, member in schema.get("properties", {}).items():
            example = (member.get("examples") or [None])[0]
            meaning = " ".join(filter(None, [member.get("description"), example_text(example)]))
            rows.append([code(name), "body", schema_text(document, member), meaning])
    return [table(["Parameter", "In", "Accepts", "Meaning"], rows)] if rows else []


def resolved(document: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference stands for."""
    while "$ref" in item:
        found: dict[str, Any] = document
        for part in item["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        item = found
    return item


def schema_text(document: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return what a schema accepts, in words."""
    schema = resolved(document, schema)
    variants = [
        schema_text(document, each)
        for each in schema.get("anyOf", [])
        if resolved(document, each).get("type") != "null"
    ]
    if variants:
        return " or ".join(dict.fromkeys(variants))
    if "enum" in schema:
        return ", ".join(code(str(value)) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {schema_text(document, schema.get('items', {}))}"
    words = [schema.get("format") or schema.get("type", "anything")]
    lower, upper = schema.get("minimum"), schema.get("maximum")
    if lower is not None and upper is not None:
        words.append(f"{lower:,} to {upper:,}")
    if "maxLength" in schema:
        words.append(f"at most {schema['maxLength']:,} characters")
    return ", ".join(words)


def example_text(example: object) -> str:
    """Return an example as a sentence, nothing where there is none."""
    return "" if example is None else f"Example: {code(str(example))}."


def answer_text(document: dict[str, Any], response: dict[str, Any]) -> str:
    """Return what an answer is, in words."""
    response = resolved(document, response)
    kinds = ", ".join(map(code, response.get("content", {})))
    return f"{response['description']} ({kinds})" if kinds else str(response["description"])


def pages() -> dict[str, str]:
    """Return every generated page by its file name."""
    # The pages must not depend on who makes them.
    for name in [name for name in os.environ if name.startswith("SENS_")]:
        del os.environ[name]
    made = {
        **({"api.md": api_page()} if module_of("sens_platform_api", "app") else {}),
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
