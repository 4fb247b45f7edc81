"""Importing Apache Arrow when it is asked for: it takes a tenth of a second and some 60 MB, which an API that nobody asks for it does not need."""

import asyncio
import importlib
from typing import Final

_MODULE: Final = "sens_platform_api.measurements.arrow"


async def load_arrow() -> None:
    """Import the module `arrow` in a thread, so that others are served meanwhile."""
    await asyncio.to_thread(importlib.import_module, _MODULE)
