"""The page of all services' settings."""

import inspect
import typing
from collections.abc import Iterator

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sens_common.settings import ServiceSettings, variable
from tools.reference.markdown import code, table
from tools.reference.services import SERVICES, module_of


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
    if len(kinds) == 1 and typing.get_origin(kinds[0]) is typing.Annotated:  # such a type, or none
        return accepted(FieldInfo.from_annotation(kinds[0]))
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
