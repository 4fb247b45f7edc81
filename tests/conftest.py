"""Fixtures of real servers; property tests that repeat; what comes first, and which tests may open no socket."""

import gc
from functools import cache
from typing import Any, Final

import hypothesis
import pytest
import structlog

from support.depth import tries

pytest_plugins = [
    "support.processes",
    "support.http_clients",
    "support.servers",
    "support.databases",
    "support.former_rows",
    "support.platform",
    "support.brokers",
    "support.workers",
    "support.api",
    "support.git",
    "support.programs",
    "support.registry",
    "support.hosting",
    "support.release",
    "support.gitops",
    "support.cluster",
    "support.kubectl",
    "support.certificates",
    "support.environments",
    "support.codecs",
]

hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, max_examples=tries(100, 2_000)
)
hypothesis.settings.load_profile("suite")


_SLOW_FIRST: Final = (
    "tests/torture/",
    "tests/images/",
    "tests/connected/cli/test_up.py",
    "tests/connected/tools/test_bench.py",
    "tests/connected/platform_api/test_replay.py",
    "tests/connected/",
    "tests/release/",
    "tests/chart/",
    "tests/contract/",
)
_WITHOUT_SOCKETS: Final = ("tests/architecture/", "tests/unit/")


@pytest.fixture(autouse=True)
def _logs_as_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test configures of the logs ends with it; a logger that is used meanwhile does not keep it."""
    structlog.reset_defaults()
    configure = structlog.configure

    def configure_without_cache(**options: Any) -> None:
        configure(**options | {"cache_logger_on_first_use": False})

    monkeypatch.setattr(structlog, "configure", configure_without_cache)


@pytest.hookimpl(tryfirst=True)  # pytest-socket reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let some folders open no socket; what takes long comes first, so that all processes end at about the same time.

    Otherwise the order is random.
    """
    for item in items:
        if item.nodeid.startswith(_WITHOUT_SOCKETS):
            item.add_marker(pytest.mark.disable_socket)
    items.sort(key=lambda item: _rank(item.nodeid.partition("::")[0]))


@cache
def _rank(file: str) -> int:
    return next((rank for rank, start in enumerate(_SLOW_FIRST) if file.startswith(start)), len(_SLOW_FIRST))


def pytest_collection_finish() -> None:
    """Spare the garbage collector thousands of tests that live as long as the process."""
    gc.freeze()
