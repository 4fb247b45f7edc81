"""Fixtures of real servers; property tests that repeat; which tests share a process, and which may open no socket."""

from typing import Final

import hypothesis
import pytest

pytest_plugins = [
    "support.servers",
    "support.platform",
    "support.brokers",
    "support.workers",
    "support.api",
    "support.git",
    "support.registry",
    "support.hosting",
    "support.release",
    "support.gitops",
    "support.cluster",
    "support.fake_kubectl",
    "support.certificates",
    "support.environments",
]

hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("suite")


_SLOW_FIRST: Final = ("tests/torture/", "tests/images/", "tests/connected/", "tests/release/")
_WITHOUT_SOCKETS: Final = ("tests/architecture/", "tests/unit/")


@pytest.hookimpl(tryfirst=True)  # pytest-xdist and pytest-socket read the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, as they share servers, and those of the images, as they are built once.

    The folders that take long come first, so that all processes end at about the same time. Within a folder the order is random.
    """
    files = [item.path.relative_to(config.rootpath).as_posix() for item in items]
    for item, file in zip(items, files, strict=True):
        item.add_marker(pytest.mark.xdist_group("images" if file.startswith("tests/images/") else file))
        if file.startswith(_WITHOUT_SOCKETS):
            item.add_marker(pytest.mark.disable_socket)
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    return next((rank for rank, folder in enumerate(_SLOW_FIRST) if item.nodeid.startswith(folder)), len(_SLOW_FIRST))
