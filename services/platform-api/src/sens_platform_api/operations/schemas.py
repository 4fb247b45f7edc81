"""Answers of the operations paths, as `sens_common.operations` gives them, for the OpenAPI document."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Health(BaseModel):
    """Whether the process works."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[Literal["ok", "failed"], Field(examples=["ok"])]
    detail: Annotated[str | None, Field(description="What is wrong; missing when nothing is.", examples=[None])] = None


class Readiness(BaseModel):
    """Whether the process can do its work."""

    model_config = ConfigDict(extra="forbid")

    status: Annotated[Literal["ok", "degraded", "failed"], Field(examples=["ok"])]
    checks: Annotated[
        dict[str, str],
        Field(description="Each check's answer: ok, or what is wrong.", examples=[{"database": "ok", "nats": "ok"}]),
    ]
    notes: Annotated[
        dict[str, str] | None,
        Field(
            description="What works but should be otherwise, by name; missing when there is nothing.", examples=[None]
        ),
    ] = None


class VersionAnswer(BaseModel):
    """What is running."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(description="The service.", examples=["platform-api"])]
    version: Annotated[str, Field(description="The product's version (SemVer).", examples=["0.1.0"])]
    product_commit: Annotated[
        str, Field(description="Commit that it was built from, or unknown.", examples=["unknown"])
    ]


class TestAnswer(BaseModel):
    """Answer of the test endpoint."""

    model_config = ConfigDict(extra="forbid")

    message: Annotated[str, Field(description="What was logged.", examples=["test endpoint called"])]
