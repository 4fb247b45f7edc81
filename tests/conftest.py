"""Fixtures of real servers; property tests that repeat; which tests share a process, and which may open no socket."""

import os
from typing import Any, Final, override

import hypothesis
import pytest
import structlog
from xdist.scheduler import LoadFileScheduling

pytest_plugins = [
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

hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
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
_MOST_PROCESSES: Final = 4
"""Each has servers of its own."""
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
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let some folders open no socket; what takes long comes first, so that all processes end at about the same time.

    Otherwise the order is random.
    """
    for item in items:
        if item.path.relative_to(config.rootpath).as_posix().startswith(_WITHOUT_SOCKETS):
            item.add_marker(pytest.mark.disable_socket)
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    return next((rank for rank, start in enumerate(_SLOW_FIRST) if item.nodeid.startswith(start)), len(_SLOW_FIRST))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes share the tests: pytest-xdist asks where ``--numprocesses=auto`` is given.

    One more than there are cores: a test that waits for a server's clock leaves its core to another one.
    """
    return min((os.cpu_count() or 1) + 1, _MOST_PROCESSES)


class _ByFile(LoadFileScheduling):  # type: ignore[misc] # carries no types
    """Tests of a file share a process, as they share servers, and those of the images too, as they are built once.

    Not by marks and `--dist=loadgroup`: pytest-xdist 3.8 writes the group into an attribute that pytest 9.2 does not read, and groups nothing.
    """

    @override
    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/images" if file.startswith("tests/images/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _ByFile:
    """Hand tests out to several processes; pytest-xdist asks."""
    return _ByFile(config, log)
