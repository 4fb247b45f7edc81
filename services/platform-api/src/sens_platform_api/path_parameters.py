"""Parameters in paths. FastAPI's words for them are apart from the others', because the administration command starts without FastAPI."""

from typing import Annotated

from fastapi import Path

from sens_platform_api.parameters import DEVICE_PATTERN, DEVICE_WORDS, NAME_PATTERN, NAME_WORDS, in_words

DevicePath = Annotated[
    str,
    Path(
        description="The device's name, or its EUI in any spelling.",
        max_length=63,
        examples=["sensor-0001"],
        json_schema_extra={"pattern": DEVICE_PATTERN},
    ),
    in_words(DEVICE_PATTERN, DEVICE_WORDS),
]

NamePath = Annotated[
    str,
    Path(
        description="Its name.",
        max_length=63,
        examples=["greenhouse"],
        json_schema_extra={"pattern": NAME_PATTERN},
    ),
    in_words(NAME_PATTERN, NAME_WORDS),
]
