import re
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AfterValidator, Field, SecretStr

from sens_common.errors import SettingsError
from sens_common.settings import DatabaseSettings, Group, NatsSettings, ServiceSettings, variable

SECRET = "hunter2-do-not-print"


class FilterSettings(Group):
    filters: list[str] = Field(["a"], max_length=2, description="Filters as a JSON list.")
    limit: Annotated[int, AfterValidator(lambda limit: limit)] = Field(1, ge=1, description="Largest number.")


class ExampleSettings(ServiceSettings):
    nats: NatsSettings = NatsSettings()
    database: DatabaseSettings = DatabaseSettings()
    input: FilterSettings = FilterSettings()
    api_key: SecretStr | None = Field(None, min_length=10, description="Key.")


def load(monkeypatch: pytest.MonkeyPatch, **variables: str) -> ExampleSettings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return ExampleSettings.load()


def error_text(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(monkeypatch, **variables)
    return str(caught.value)


class TestLoad:
    def test_needs_no_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert load(monkeypatch).nats.url == "nats://127.0.0.1:4222"

    def test_reads_levels_joined_by_two_underscores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = load(monkeypatch, SENS_NATS__REPLICAS="3", SENS_LOG__LEVEL="debug", SENS_INPUT__FILTERS='["x", "y"]')

        assert (settings.nats.replicas, settings.log.level, settings.input.filters) == (3, "debug", ["x", "y"])

    def test_ignores_variables_of_other_services(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert load(monkeypatch, SENS_API__PORT="99999999", SENS_PRODUCT_COMMIT="abc").log.level == "info"


class TestErrorText:
    @pytest.mark.parametrize(
        ("name", "value", "accepts"),
        [
            ("SENS_LOG__LEVEL", "loud", "'debug', 'info', 'warning' or 'error'"),
            ("SENS_NATS__REPLICAS", "99", "less than or equal to 5"),
            ("SENS_NATS__REPLICAS", "", "valid integer"),
            ("SENS_NATS__URL", f"nats://user:{SECRET}@host", "without credentials"),
            ("SENS_DATABASE__PORT", "70000", "less than or equal to 65535"),
            ("SENS_DATABASE__SSL", "maybe", "'verify-full'"),
            ("SENS_INPUT__FILTERS", '["a", "b", "c"]', "at most 2 items"),
            ("SENS_INPUT__FILTERS", "a,b", "should be JSON. Filters as a JSON list."),
            ("SENS_INPUT", f"{{{SECRET}", "a JSON object; or set its members one by one, as SENS_INPUT__NAME"),
            ("SENS_API_KEY", "short", "at least 10 items"),
        ],
    )
    def test_names_the_variable_and_what_it_accepts(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str, accepts: str
    ) -> None:
        text = error_text(monkeypatch, **{name: value})

        assert text.startswith(f"{name}: ")
        assert accepts in text
        assert not value or value not in text

    def test_names_the_item_of_a_list(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert error_text(monkeypatch, SENS_INPUT__FILTERS='["a", 5]').startswith("SENS_INPUT__FILTERS, item 2: ")

    def test_names_a_member_that_does_not_exist(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert error_text(monkeypatch, SENS_NATS__URI="x").startswith("SENS_NATS__URI: ")

    def test_has_a_line_for_each_wrong_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = error_text(monkeypatch, SENS_NATS__REPLICAS="x", SENS_DATABASE__PORT="y").splitlines()

        assert [line.split(":")[0] for line in lines] == ["SENS_NATS__REPLICAS", "SENS_DATABASE__PORT"]

    @given(
        name=st.sampled_from(
            ["SENS_NATS__REPLICAS", "SENS_DATABASE__PORT", "SENS_LOG", "SENS_LOG__LEVEL", "SENS_INPUT"]
        ),
        noise=st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=20),
    )
    def test_never_repeats_the_value(self, name: str, noise: str) -> None:
        with pytest.MonkeyPatch.context() as monkeypatch:
            text = error_text(monkeypatch, **{name: f"{noise}{SECRET}"})

        assert name in text
        assert SECRET not in text

    def test_is_raised_without_the_error_that_holds_the_value(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(SettingsError) as caught:
            load(monkeypatch, SENS_DATABASE__PASSWORD=SECRET, SENS_DATABASE__PORT="x")

        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


class TestSecrets:
    def test_are_shown_neither_by_str_nor_by_repr_nor_as_json(self, monkeypatch: pytest.MonkeyPatch) -> None:
        settings = load(
            monkeypatch,
            SENS_NATS__PASSWORD=SECRET,
            SENS_NATS__TOKEN=SECRET,
            SENS_DATABASE__PASSWORD=SECRET,
            SENS_API_KEY=SECRET,
        )

        for text in (str(settings), repr(settings), settings.model_dump_json(), f"{settings.nats}"):
            assert SECRET not in text
        assert settings.nats.password is not None
        assert settings.nats.password.get_secret_value() == SECRET


class TestVariable:
    def test_joins_groups_and_name(self) -> None:
        assert variable(("database", "command_timeout_seconds")) == "SENS_DATABASE__COMMAND_TIMEOUT_SECONDS"

    def test_is_a_name_that_a_shell_accepts(self) -> None:
        for group in ("nats", "database", "log"):
            assert re.fullmatch(r"[A-Z_]+", variable((group, "x")))
