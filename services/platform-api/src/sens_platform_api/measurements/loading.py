"""Importing Apache Arrow when it is asked for: it takes a tenth of a second and some 60 MB, which an API that nobody asks for it does not need."""

import asyncio
import importlib
import os
from collections.abc import AsyncGenerator, Callable
from typing import Any, Literal


async def load_renderer(form: Literal["arrow", "parquet"]) -> Callable[[Any], AsyncGenerator[bytes]]:
    """Return what makes bytes of a table of the module `arrow`; modules are imported in a thread, so that others are served meanwhile."""
    # With an allocator of its own Arrow takes 4 MB more (https://arrow.apache.org/docs/cpp/env_vars.html); it is chosen at the import.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    module = await asyncio.to_thread(importlib.import_module, f"{__package__}.{form}")
    render: Callable[[Any], AsyncGenerator[bytes]] = getattr(module, f"as_{form}")
    return render
