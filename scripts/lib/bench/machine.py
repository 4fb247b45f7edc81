"""The machine that figures come from."""

import os
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path


def machine() -> Mapping[str, object]:
    """Describe where the figures come from."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown",
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gigabytes": round(memory, 1),
        "system": " ".join(os.uname()[::2][:2]),
        "python": sys.version.split()[0],
        "optimised_python": "--enable-optimizations" in str(sysconfig.get_config_var("CONFIG_ARGS")),
    }
