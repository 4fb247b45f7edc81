"""The list of formats, and what is said of one that is not in it or is set wrongly."""

import re
from pathlib import Path

import pytest

import sens_payloads.formats
from sens_common.errors import SettingsError
from sens_payloads.formats import FORMATS, format_settings, network_format


class TestFormats:
    def test_are_all_modules_that_unwrap_without_a_state(self) -> None:
        folder = Path(sens_payloads.formats.__file__).parent
        unwrapping = {
            path.stem
            for path in folder.glob("*.py")
            if re.search(r"^def unwrap\(", path.read_text(encoding="utf-8"), re.MULTILINE)
        }

        assert {*FORMATS} == unwrapping

    @pytest.mark.parametrize("name", FORMATS)
    def test_have_settings(self, name: str) -> None:
        assert network_format(name).Settings.model_json_schema()["type"] == "object"


class TestNetworkFormat:
    @pytest.mark.parametrize("name", ["of_tomorrow", "__init__", "../json", ""])
    def test_that_there_is_not_is_refused_with_those_that_there_are(self, name: str) -> None:
        with pytest.raises(SettingsError, match="the formats are: actility, cbor, chirpstack, "):
            network_format(name)


class TestSettings:
    def test_that_are_wrong_are_named(self) -> None:
        with pytest.raises(
            SettingsError, match=r"settings of format netmore: nonsense: Extra inputs are not permitted"
        ):
            format_settings("netmore", {"nonsense": 1})
