"""Services meet on the wire, never in an import; import-linter holds the finer contracts."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.services import SERVICES, Service

READS_PAYLOADS = {"telemetry-worker", "platform-api", "cli"}
"""The services that read what other people's sensors send."""


def imported_names(module: Path) -> Iterator[str]:
    """Yield the full name of everything that a module imports, inside functions too."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            yield node.module or ""


class TestEveryModule:
    @pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
    def test_imports_no_other_service(self, service: Service) -> None:
        allowed = {service.package, "sens_common"} | ({"sens_payloads"} if service.name in READS_PAYLOADS else set())
        foreign = {
            (str(module.relative_to(service.source)), name)
            for module in service.modules
            for name in imported_names(module)
            if name.startswith("sens_") and name.split(".")[0] not in allowed
        }

        assert foreign == set()

    @pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
    def test_has_a_name_that_says_what_it_is_for(self, service: Service) -> None:
        vague = {"utils", "helpers", "core", "base", "common", "misc"}

        assert {module.stem for module in service.modules} & vague == set()

    @pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
    def test_begins_with_what_it_is(self, service: Service) -> None:
        undocumented = [
            str(module.relative_to(service.source))
            for module in service.modules
            if module.stat().st_size and ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) is None
        ]

        assert undocumented == []
