"""The application's OpenAPI document."""

from typing import Annotated, Any, ClassVar

import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from sens_platform_api.app import openapi_document
from sens_platform_api.state import Part, provide

type Operations = dict[str, dict[str, Any]]
"""What the document says of each operation, by method and path."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The document, when tests run: making it takes longer than finding all tests of the folder."""
    return openapi_document()


@pytest.fixture(scope="module")
def operations(document: dict[str, Any]) -> Operations:
    found = {
        f"{method} {path}": each for path, methods in document["paths"].items() for method, each in methods.items()
    }
    assert len(found) > 50
    return found


def has_data(operation: str) -> bool:
    return operation.partition(" ")[2].startswith("/api/")


class TestEveryOperation:
    def test_is_named_and_described(self, document: dict[str, Any], operations: Operations) -> None:
        tags = {tag["name"] for tag in document["tags"]}
        for name, operation in operations.items():
            assert operation["operationId"], name
            assert operation["summary"], name
            assert operation["description"], name
            assert operation["tags"][0] in tags, name

    def test_documents_its_problems(self, operations: Operations) -> None:
        for name, operation in operations.items():
            expected = {"400", "413", "422", "431"} | ({"401", "503", "504"} if has_data(name) else set())
            assert expected <= set(operation["responses"]), name
            for status in expected:
                assert "application/problem+json" in operation["responses"][status]["content"], name

    def test_needs_a_key_exactly_when_it_gives_data(self, operations: Operations) -> None:
        with_key = {name for name, operation in operations.items() if operation.get("security") == [{"api_key": []}]}
        assert with_key == set(filter(has_data, operations))

    def test_bounds_and_describes_its_parameters(self, operations: Operations) -> None:
        parameters = [
            (f"{name}: {each['name']}", each)
            for name, operation in operations.items()
            for each in operation.get("parameters", [])
        ]
        for name, parameter in parameters:
            schema = parameter["schema"]
            assert parameter["description"], name
            assert schema.get("examples"), name
            [variant] = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
            bounds = variant.keys() & {"maxLength", "maximum", "maxItems", "enum", "$ref"}
            assert bounds or variant["type"] == "boolean", name


class TestParts:
    """What endpoints need of the application's state."""

    PART: ClassVar = Part[str]("greeting")

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/greeting")
        async def greeting(text: Annotated[str, Depends(self.PART)]) -> str:
            return text

        return app

    def test_are_what_was_provided(self) -> None:
        app = self.app()
        provide(app, [self.PART.provided("hello")])
        assert TestClient(app).get("/greeting").json() == "hello"

    def test_that_nobody_provides_are_named_at_the_start(self) -> None:
        with pytest.raises(LookupError, match="nobody provides greeting; the composition root"):
            provide(self.app(), [])
