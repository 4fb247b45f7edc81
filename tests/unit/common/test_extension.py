"""When TimescaleDB's extension is older than the server's."""

import pytest

from sens_common.extension import Versions


@pytest.mark.parametrize(
    ("installed", "available", "is_outdated"),
    [
        ("2.22.1", "2.29.2", True),
        ("2.9.3", "2.29.2", True),
        ("2.29.2", "2.29.2", False),
        ("2.29.3-dev", "2.29.2", False),
        ("2.29.2", None, False),
        (None, None, True),
    ],
)
def test_is_outdated(installed: str | None, available: str | None, is_outdated: bool) -> None:
    assert Versions(installed, available).is_outdated is is_outdated
