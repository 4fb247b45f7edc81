"""The examples of the page about programs in the house give, by the presets, the values that the page shows."""

import pytest

from sens_payloads.formats import json as json_format
from sens_payloads.formats.presets import PRESETS
from sens_payloads.uplinks import Received
from support.played_pages import Section, Shown, latest_values, sections

RECEIVED_AT = 1_788_508_809_000_000
SECTIONS = list(sections("networks/house.md", {}))


def word_after(words: tuple[str, ...], option: str) -> str:
    return words[words.index(option) + 1]


@pytest.mark.parametrize("section", SECTIONS, ids=[section.name for section in SECTIONS])
def test_example_gives_what_the_page_shows(section: Section) -> None:
    (create, *_), publish, latest, _ = section.parts()
    body = section.files[publish.stdin or ""].strip().encode()
    received = Received(body, RECEIVED_AT, word_after(publish.words, "--topic"))

    found = json_format.unwrap(received, PRESETS[word_after(create.words, "--preset")].settings)

    assert isinstance(found, list)
    (uplink,) = found
    assert uplink.device == latest.words[1]
    values = {
        Shown(name, str(value).lower() if value is True else str(value))
        for name, value in (uplink.fields or {}).items()
    }
    assert values == latest_values(latest.shown)
    assert len(values) > 0
