"""Asks kubectl. What it can't tell is told apart from what is wrong."""

import asyncio
import json
import re
from typing import Any, Final

from sens_cli.release.kubectl import Finished, UnansweredError, run_kubectl
from sens_cli.verify.outcome import CheckFailedError, NotRunError

TIMEOUT_SECONDS: Final = 15.0

_AT_ONCE = 4
# What kubectl says when it has no cluster, no credentials or no right.
_NO_ACCESS = re.compile(
    r"no configuration has been provided|unable to connect to the server|the connection to the server"
    r"|must be logged in|unauthorized|forbidden|getting credentials|error loading config|invalid configuration"
    r'|context "[^"]*" does not exist|couldn\'t get current server api group list|/kubeconfig|no such host',
    re.IGNORECASE,
)
# What of it holds for every other question too.
_UNREACHABLE = re.compile(r"unable to connect to the server|the connection to the server|no such host", re.IGNORECASE)


class Kubectl:
    """The program on the PATH, with the configuration it finds by itself."""

    def __init__(self, context: str | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._context = context
        self._timeout_seconds = timeout_seconds
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._lost: str | None = None

    async def run(self, *arguments: str, given: bytes = b"") -> Finished:
        """Run it and return how it ended, whatever its exit code.

        Args:
            arguments: Without the options of the connection.
            given: Its standard input.

        Raises:
            NotRunError: There is no kubectl, or it has no access to the cluster.
        """
        async with self._slots:
            if self._lost is not None:  # each of the others would wait as long for the same answer
                raise NotRunError(self._lost)
            try:
                finished = await run_kubectl(
                    *arguments, context=self._context, timeout_seconds=self._timeout_seconds, standard_input=given
                )
            except UnansweredError as error:
                if arguments[0] != "exec":  # where it may be the program in the pod that hangs
                    self._lost = str(error)
                raise NotRunError(str(error)) from None
            if finished.code != 0 and finished.program_code is None and _NO_ACCESS.search(finished.errors):
                reason = f"kubectl has no access: {finished.reason}"
                if _UNREACHABLE.search(finished.errors):
                    self._lost = reason
                raise NotRunError(reason)
            return finished

    async def documents(self, *arguments: str, given: bytes = b"") -> list[dict[str, Any]]:
        """Run it and return the JSON objects that it prints, those of lists one by one.

        Raises:
            NotRunError: As `run`.
            CheckFailedError: It fails, or prints something else.
        """
        finished = await self.run(*arguments, given=given)
        if finished.code != 0:
            raise CheckFailedError(
                f"kubectl {arguments[0]}: {finished.reason}", "Run it by hand, and see what it says."
            )
        try:
            return _objects(finished.output)
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise CheckFailedError(
                f"kubectl {arguments[0]} prints no JSON", "See that the kubectl on the PATH is Kubernetes' own."
            ) from None

    async def execute(self, pod_of: str, namespace: str, command: list[str]) -> Finished:
        """Run a program in a pod of a workload (``statefulset/name``); raises as `run`."""
        return await self.run("exec", f"--namespace={namespace}", "--pod-running-timeout=5s", pod_of, "--", *command)


def _objects(text: str) -> list[dict[str, Any]]:
    """Return the objects of a text with JSON documents one after another, as ``kubectl create -o json`` prints them."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    rest = text.lstrip()
    while rest:
        document, end = decoder.raw_decode(rest)
        found += document.get("items", [document])
        rest = rest[end:].lstrip()
    if not all(isinstance(each, dict) for each in found):
        raise TypeError
    return found
