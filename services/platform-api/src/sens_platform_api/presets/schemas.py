"""Presets in answers."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from sens_payloads.formats.preset import Preset


class PresetDocument(BaseModel):
    """Rules for messages of a well-known program or device."""

    model_config = ConfigDict(extra="forbid")

    preset: Annotated[str, Field(description="Its name.", examples=["tasmota"])]
    title: Annotated[str, Field(description="What it is for.", examples=["Tasmota"])]
    description: Annotated[str, Field(description="What is read, and what to know about it.")]
    topic_filters: Annotated[
        list[str],
        Field(
            description="MQTT topic filters with the program's default names: a source for each.", examples=[["tele/#"]]
        ),
    ]
    format: Annotated[str, Field(description="Format of the source.", examples=["json"])]
    settings: Annotated[dict[str, Any], Field(description="Settings of the source, to start from.")]

    @classmethod
    def of(cls, preset: Preset) -> Self:
        """Return the document of a preset."""
        return cls(
            preset=preset.name,
            title=preset.title,
            description=preset.description,
            topic_filters=list(preset.filters),
            format="json",
            settings=preset.settings.model_dump(mode="json", exclude_unset=True),
        )


class PresetList(BaseModel):
    """All presets, by name."""

    model_config = ConfigDict(extra="forbid")

    presets: list[PresetDocument]
