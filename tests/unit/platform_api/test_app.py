"""The application's OpenAPI document."""

from typing import Annotated, Any, ClassVar

import pytest
from fastapi import Depends, FastAPI
from starlette.testclient import TestClient

from sens_platform_api.app import openapi_document
from sens_platform_api.state import Part, provide

DOCUMENT = openapi_document()
OPERATIONS = [
    pytest.param(operation, path.startswith("/api/"), id=f"{method} {path}")
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
EACH = [pytest.param(parameter.values[0], id=parameter.id) for parameter in OPERATIONS]


class TestEveryOperation:
    @pytest.mark.parametrize("operation", EACH)
    def test_is_named_and_described(self, operation: dict[str, Any]) -> None:
        assert operation["operationId"]
        assert operation["summary"]
        assert operation["description"]
        assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}

    @pytest.mark.parametrize(("operation", "with_data"), OPERATIONS)
    def test_documents_its_problems(self, operation: dict[str, Any], with_data: bool) -> None:
        expected = {"400", "413", "422", "431"}
        if with_data:
            expected |= {"401", "503", "504"}
        assert expected <= set(operation["responses"])
        for status in expected:
            assert "application/problem+json" in operation["responses"][status]["content"]

    @pytest.mark.parametrize(("operation", "with_data"), OPERATIONS)
    def test_needs_a_key_exactly_when_it_gives_data(self, operation: dict[str, Any], with_data: bool) -> None:
        assert (operation.get("security") == [{"api_key": []}]) == with_data

    @pytest.mark.parametrize("operation", EACH)
    def test_bounds_and_describes_its_parameters(self, operation: dict[str, Any]) -> None:
        for parameter in operation.get("parameters", []):
            schema = parameter["schema"]
            assert parameter["description"], parameter["name"]
            assert schema.get("examples"), parameter["name"]
            [variant] = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
            bounds = variant.keys() & {"maxLength", "maximum", "maxItems", "enum", "$ref"}
            assert bounds or variant["type"] == "boolean", parameter["name"]


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
