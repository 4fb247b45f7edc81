"""The page of the HTTP API."""

import json
from typing import Any

from sens_platform_api.app import openapi_document
from tools.reference.markdown import code, table


def api_page() -> str:
    """Return the page of the HTTP API, as its OpenAPI document describes it."""
    document: dict[str, Any] = openapi_document()
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    shared = set.intersection(
        *({*operation["responses"]} for _, path, operation in operations if path.startswith("/api/")),
    ) - {"200"}
    answers = next(operation["responses"] for _, path, operation in operations if path.startswith("/api/"))
    parts = [
        "# HTTP API",
        document["info"]["description"],
        "The API itself serves this as an OpenAPI document at `/openapi.json`.",
        "## Errors of every path with data",
        table(
            ["Status", "Answer"],
            [[status, resolved(document, answers[status])["description"]] for status in sorted(shared)],
        ),
        "Such an answer is of the type `application/problem+json` and looks like this:",
        example_block(document, {"$ref": "#/components/schemas/Problem"}),
    ]
    for method, path, operation in operations:
        parts += [f"## {operation['summary']}", code(f"{method.upper()} {path}"), operation.get("description", "")]
        parts += parameters(document, operation)
        for status, response in operation["responses"].items():
            if status not in shared:
                parts += answer(document, status, resolved(document, response))
    return "\n\n".join(part.strip() for part in parts if part)


def answer(document: dict[str, Any], status: str, response: dict[str, Any]) -> list[str]:
    """Return one answer with an example of its content."""
    description = response["description"].removeprefix("Successful Response")
    parts = [f"**{status}**{': ' if description else ''}{description}"]
    for kind, content in response.get("content", {}).items():
        if "example" in content:
            parts.append(f"```text\n{'\n'.join(str(content['example']).splitlines()).strip()}\n```")
        elif kind == "application/json":
            parts.append(example_block(document, content["schema"]))
    return parts


def example_block(document: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a schema's example as a block."""
    return f"```json\n{json.dumps(example_of(document, schema), indent=2, ensure_ascii=False)}\n```"


def example_of(document: dict[str, Any], schema: dict[str, Any]) -> object:
    """Return an example of a schema, made of its members' examples."""
    for given in (schema, schema := resolved(document, schema)):
        if given.get("examples"):
            return given["examples"][0]
        if "example" in given or "const" in given or "default" in given:
            return given.get("example", given.get("const", given.get("default")))
    if schema.get("anyOf"):
        return example_of(document, schema["anyOf"][0])
    if schema.get("type") == "array":
        return [example_of(document, schema.get("items", {}))]
    if schema.get("type") == "object":
        members = schema.get("properties", {})
        return {name: example_of(document, member) for name, member in members.items()}
    return {"string": "…", "integer": 0, "number": 0.0, "boolean": True}.get(schema.get("type", ""))


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
    if isinstance(example, list):
        example = example[0]
    return "" if example is None else f"Example: {code(str(example))}."
