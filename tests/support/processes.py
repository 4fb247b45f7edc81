"""How the tests are handed out to several processes; pytest-xdist asks."""

import os
from typing import Final, override

import pytest
from xdist.scheduler import LoadFileScheduling

_MOST_PROCESSES: Final = 4
"""Each has servers of its own."""
THE_PLATFORM: Final = "the platform"
SHARED: Final = {
    "tests/images/": "the images",
    "tests/connected/cli/test_commands.py": THE_PLATFORM,
    "tests/connected/cli/test_end_to_end.py": THE_PLATFORM,
    "tests/connected/cli/test_import.py": THE_PLATFORM,
    "tests/connected/cli/test_redecode.py": THE_PLATFORM,
    "tests/connected/cli/test_up.py": THE_PLATFORM,
    "tests/connected/cli/test_verify.py": THE_PLATFORM,
    "tests/connected/chart/test_helm_test.py": THE_PLATFORM,
}
"""What the tests of several files share: images that are built once, a start of the whole platform."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes share the tests, where ``--numprocesses=auto`` is given.

    One more than there are cores: a test that waits for a server's clock leaves its core to another one.
    """
    return min((os.cpu_count() or 1) + 1, _MOST_PROCESSES)


class _ByFile(LoadFileScheduling):  # type: ignore[misc] # carries no types
    """Tests of a file share a process, as they share servers, and so do those of files that share more.

    Not by marks and `--dist=loadgroup`: pytest-xdist 3.8 writes the group into an attribute that pytest 9.2 does not read, and groups nothing.
    """

    @override
    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return next((shared for start, shared in SHARED.items() if file.startswith(start)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _ByFile:
    """Hand tests out to several processes."""
    return _ByFile(config, log)
