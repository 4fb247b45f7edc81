"""What the API says of a codec that it can't run."""

from typing import cast

import pytest

from sens_common.errors import UnavailableError
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from sens_platform_api.codecs.checking import SandboxCheck
from sens_platform_api.errors import CodecsUnavailableError


class NoSandbox:
    async def form(self, *_: object, **__: object) -> object:
        raise UnavailableError("no seccomp here")


async def test_a_codec_that_can_not_be_run_is_refused() -> None:
    check = SandboxCheck(cast("Sandbox", NoSandbox()))
    with pytest.raises(CodecsUnavailableError, match="nothing is saved"):
        await check.problems(1, "function decodeUplink(input) { return {data: {}}; }", [])
