"""Every setting says what it is: the reference and the start-up errors are made of these sentences."""

import importlib
import importlib.util
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sens_common.errors import SettingsError
from sens_common.settings import ServiceSettings, variable
from support.services import SERVICES

SECRET_NAME = re.compile(r"password|token|secret|(?<!_)key$|private")


def settings_classes() -> list[type[ServiceSettings]]:
    found = []
    for service in SERVICES:
        if service.name == "common" or importlib.util.find_spec(f"{service.package}.settings") is None:
            continue
        module = importlib.import_module(f"{service.package}.settings")
        found += [
            member
            for member in vars(module).values()
            if isinstance(member, type) and issubclass(member, ServiceSettings) and member.__module__ == module.__name__
        ]
    return found


def fields(model: type[BaseModel], groups: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield every setting with its path."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, (*groups, name))
        else:
            yield (*groups, name), field


SETTINGS = {
    f"{settings.__name__} {variable(path)}": (path, field)
    for settings in settings_classes()
    for path, field in fields(settings)
}


class TestEverySetting:
    def test_exists(self) -> None:
        assert len(settings_classes()) >= 1
        assert len(SETTINGS) >= len(settings_classes())

    def test_has_a_description_of_one_line(self) -> None:
        for name, (_, field) in SETTINGS.items():
            assert field.description, name
            assert field.description.endswith("."), name
            assert "\n" not in field.description, name

    def test_is_hidden_when_it_is_a_secret(self) -> None:
        secrets = {
            name: str(field.annotation)
            for name, (path, field) in SETTINGS.items()
            if SECRET_NAME.search(path[-1])
            and field.annotation not in {int, float, bool}
            and not path[-1].endswith("_file")
        }
        assert secrets
        assert {name: kind for name, kind in secrets.items() if "SecretStr" not in kind} == {}


class TestEverySettingsClass:
    @pytest.mark.parametrize("settings", settings_classes(), ids=lambda settings: settings.__name__)
    def test_needs_no_two_names_that_give_one_variable(self, settings: type[ServiceSettings]) -> None:
        names = [variable(path) for path, _ in fields(settings)]

        assert sorted(names) == sorted(set(names))

    @pytest.mark.parametrize("settings", settings_classes(), ids=lambda settings: settings.__name__)
    @given(data=st.data())
    def test_takes_any_text_or_names_the_variable_that_it_refuses(
        self, settings: type[ServiceSettings], data: st.DataObject
    ) -> None:
        """Fuzzes each variable on its own, and the groups' own variables, which would hold JSON."""
        paths = [path for path, _ in fields(settings)]
        names = sorted({variable(path[:length]) for path in paths for length in range(1, len(path) + 1)})
        name = data.draw(st.sampled_from(names))
        # What an environment can hold: any text without NUL.
        text = data.draw(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(name, text)
            try:
                settings.load()
            except SettingsError as error:
                assert name in str(error)  # noqa: PT017 - most texts raise nothing
