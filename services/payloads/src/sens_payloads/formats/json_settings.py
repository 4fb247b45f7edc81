"""What a source of JSON, MessagePack or CBOR may set: rules that say where in a message the device, the time and the values are."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from sens_payloads.formats.device_names import OtherCharacters
from sens_payloads.formats.name_templates import NameTemplate, name_template
from sens_payloads.formats.times import TimeUnit
from sens_payloads.formats.topics import TopicTemplate, topic_template


def _is_topic(text: str) -> str:
    topic_template(text)
    return text


def _is_name(text: str) -> str:
    name_template(text)
    return text


def _is_path(text: str) -> str:
    if text and not all(text.split(".")):
        raise ValueError("a path is names joined with dots, such as params.ts")
    return text


Path = Annotated[str, Field(max_length=200), AfterValidator(_is_path)]
"""Names of members joined with dots; of an array's elements, their positions from 0."""
Topic = Annotated[str, Field(max_length=200), AfterValidator(_is_topic)]
NameText = Annotated[str, Field(max_length=200), AfterValidator(_is_name)]
Word = Annotated[str, Field(max_length=64)]


class Rule(BaseModel):
    """How messages of some topics are read.

    ``topic``: A template such as ``home/{device}/{metric}`` (`topics`); empty: every topic, and what comes over HTTP.
    ``when``: Paths and the texts of which they must have one; else the next rule is asked.
    ``without_measurements``: Messages of this rule carry none by their nature; this is what they are instead.
    ``device``: The device's name (`name_templates`): fixed, from the topic, from members: ``{model}-{id}``.
    ``other_characters``: What becomes of a name that a device can't have.
    ``readings``: Path of an array of readings, or of an object that has a reading or an array of readings for each device. Empty: the
    whole message, which may be an array of readings.
    ``device_keys``: The keys of the object at ``readings`` are what ``{key}`` stands for: usually the device's name.
    ``time``: Path of the time in a reading, or in the message. Empty: the receipt counts.
    ``time_unit``: Of a number (`times`).
    ``time_offset``: From UTC of a time without a zone.
    ``unusable_time``: What becomes of a message whose time can't be read or is not plausible; ``receipt``: the receipt counts.
    ``values``: Path of the values in a reading. Empty: all members but those that say device, time and metric.
    ``metric``: The metric's name where the value has none, and what the names of others begin with. Empty: ``{metric}``, if the topic has it.
    ``skip``: Paths in the values that are left out.
    ``states``: Texts that mean yes or no, such as ``{"ON": true, "OFF": false}``.
    ``no_value``: Texts that mean that there is no value, in any case.
    ``texts``: Whether texts are stored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic: Topic = ""
    when: dict[Path, Annotated[list[Word], Field(min_length=1, max_length=16)]] = Field({}, max_length=8)
    without_measurements: Literal["", "event", "command", "simulated"] = ""
    device: NameText = "{device}"
    other_characters: OtherCharacters = "refuse"
    readings: Path = ""
    device_keys: bool = False
    time: Path = ""
    time_unit: TimeUnit = "auto"
    time_offset: Annotated[str, Field(pattern=r"^(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)?$")] = ""
    unusable_time: Literal["refuse", "receipt"] = "refuse"
    values: Path = ""
    metric: NameText = ""
    skip: Annotated[tuple[Path, ...], Field(max_length=64)] = ()
    states: dict[Word, bool] = Field({}, max_length=32)
    no_value: Annotated[tuple[Word, ...], Field(max_length=32)] = ("nan",)
    texts: bool = True

    @model_validator(mode="after")
    def _names_a_device(self) -> Self:
        if not self.without_measurements and not self.device:
            raise ValueError("device is empty: it is a name, or says where the name is, such as {device}")
        template = self.topic_template
        names_none = (
            template is not None and "device" not in template.variables and "device" not in self.model_fields_set
        )
        if names_none and not self.without_measurements:
            raise ValueError(
                "the topic has no {device}: give a topic such as home/{device}, or say in device where the name is"
            )
        return self

    @property
    def topic_template(self) -> TopicTemplate | None:
        """None: every topic."""
        return topic_template(self.topic) if self.topic else None

    @property
    def device_name(self) -> NameTemplate:
        """How the device's name is put together."""
        return name_template(self.device)

    @property
    def metric_name(self) -> NameTemplate:
        """How the metric's name is put together; empty where it has none."""
        if self.metric:
            return name_template(self.metric)
        template = self.topic_template
        return name_template("{metric}" if template is not None and "metric" in template.variables else "")
