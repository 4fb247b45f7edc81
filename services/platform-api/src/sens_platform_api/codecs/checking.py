"""Looks whether codecs do what their examples say, in the sandbox that runs them."""

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from sens_common.errors import UnavailableError
from sens_payloads.codecs.javascript import Example, check
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from sens_platform_api.errors import CodecsUnavailableError

log = structlog.get_logger()


class SandboxCheck:
    """The check in a sandbox, as `codecs.service.CodecCheck`."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Take what runs codecs; whoever made it closes it."""
        self._sandbox = sandbox

    async def problems(self, tenant_id: int, source: str, examples: Sequence[dict[str, Any]]) -> list[str]:
        """Return what is wrong; nothing if it can be saved.

        Raises:
            CodecsUnavailableError: Codecs can't run here, or not now.
        """
        try:
            found = await check(self._sandbox, tenant_id, source, [_example(each) for each in examples])
        except UnavailableError as error:
            log.warning("codecs can't run here, so that no version is added", error=str(error))
            raise CodecsUnavailableError from error
        return [
            problem.text if problem.example is None else f"example {problem.example + 1}: {problem.text}"
            for problem in found
        ]


def _example(document: Mapping[str, Any]) -> Example:
    error = document.get("error")
    return Example(
        bytes.fromhex(document["bytes"]), document["f_port"], document.get("fields"), "" if error is True else error
    )
