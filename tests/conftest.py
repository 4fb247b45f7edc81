"""Fixtures of real servers, for every test; property tests that depend on no clock and repeat."""

from typing import Final, override

import hypothesis
import pytest
from xdist.scheduler import LoadFileScheduling

pytest_plugins = [
    "support.servers",
    "support.platform",
    "support.brokers",
    "support.workers",
    "support.api",
    "support.git",
    "support.registry",
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


class _ByFile(LoadFileScheduling):  # type: ignore[misc] # carries no types
    """Tests of a file stay together, for they share servers; those of the images too, which are built once.

    The files that take long come first, so that all processes end at about the same time.
    """

    @override
    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/images" if file.startswith("tests/images/") else file

    @override
    def _assign_work_unit(self, node: object) -> None:
        self.workqueue.move_to_end(min(self.workqueue, key=_rank), last=False)
        super()._assign_work_unit(node)

    @override
    def remove_node(self, node: object) -> str | None:
        # A test that ended its process has failed: it is not tried again in the next one, as xdist would.
        work = self.assigned_work[node]
        left = [test for tests in work.values() for test, done in tests.items() if not done]
        if left:
            work[self._split_scope(left[0])][left[0]] = True
        # A process that is given a file without tests waits for ever.
        for file in [file for file, tests in work.items() if all(tests.values())]:
            del work[file]
        super().remove_node(node)
        return left[0] if left else None


def _rank(file: str) -> int:
    return next((rank for rank, folder in enumerate(_SLOW_FIRST) if f"{file}/".startswith(folder)), len(_SLOW_FIRST))


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _ByFile:
    """Hand tests out to several processes; pytest-xdist asks."""
    return _ByFile(config, log)
