"""Calls kubectl. What is secret goes to it by its standard input and never comes back in a text."""

import subprocess
from collections.abc import Sequence
from typing import Final

from tools.release.versions import ReleaseError

TIMEOUT_SECONDS: Final = 60.0


class KubectlError(ReleaseError):
    """The cluster refused a call, or can't be reached."""


class NotFoundInClusterError(KubectlError):
    """What was asked for does not exist."""


class Kubectl:
    """The program kubectl, with the access that ``KUBECONFIG`` or its own default gives.

    Args:
        context: The context to use; the current one when None.
    """

    def __init__(self, context: str | None = None) -> None:
        self._command = ["kubectl", *([f"--context={context}"] if context else [])]

    def run(self, *arguments: str, stdin: str = "", secrets: Sequence[str] = ()) -> str:
        """Return what a call prints.

        Args:
            arguments: The rest of the command line, which every user of this machine can see: never a secret.
            stdin: What it reads.
            secrets: Texts that must not be in an error.

        Raises:
            NotFoundInClusterError: There is no such object.
            KubectlError: The call failed in another way.
        """
        try:
            done = subprocess.run(
                [*self._command, *arguments],
                input=stdin,
                capture_output=True,
                text=True,
                check=False,
                timeout=TIMEOUT_SECONDS,
            )
        except FileNotFoundError:
            raise KubectlError("kubectl is missing: install it, or put it on PATH.") from None
        except subprocess.TimeoutExpired:
            raise KubectlError(
                f"kubectl {arguments[0]} took longer than {TIMEOUT_SECONDS:.0f} s: can the cluster be reached from here?"
            ) from None
        if done.returncode == 0:
            return done.stdout
        reason = " ".join(done.stderr.split())
        for secret in secrets:
            reason = reason.replace(secret, "…") if secret else reason
        kind = NotFoundInClusterError if "(NotFound)" in reason else KubectlError
        raise kind(f"'kubectl {' '.join(arguments)}' failed: {reason or 'it gave no reason'}")
