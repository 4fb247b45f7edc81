"""How much is tried of what chance varies: what every change needs, or with ``SENS_TEST_DEEP=1`` much more, for as long as it takes."""

import os
from typing import Final

IS_DEEP: Final = os.environ.get("SENS_TEST_DEEP") == "1"


def tries(usual: int, deep: int) -> int:
    """Return how many examples or seeds a test takes."""
    return deep if IS_DEEP else usual
