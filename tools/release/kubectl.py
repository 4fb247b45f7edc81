"""Calls kubectl for programs of releases. What is secret goes to it by its standard input and never comes back in a text."""

import asyncio
from collections.abc import Sequence
from typing import Final

from sens_cli.release.kubectl import KubectlMissingError, KubectlSilentError, UnansweredError, run_kubectl
from sens_cli.release.versions import ReleaseError

TIMEOUT_SECONDS: Final = 60.0


class KubectlError(ReleaseError):
    """The cluster refused a call, or can't be reached."""


class NotFoundInClusterError(KubectlError):
    """What was asked for does not exist."""


class ClusterAdministration:
    """The cluster, with the access that ``KUBECONFIG`` or kubectl's own default gives.

    Args:
        context: The context to use; the current one when None.
    """

    def __init__(self, context: str | None = None) -> None:
        self._context = context

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
            done = asyncio.run(
                run_kubectl(
                    *arguments,
                    context=self._context,
                    timeout_seconds=TIMEOUT_SECONDS,
                    standard_input=stdin.encode(),
                )
            )
        except KubectlMissingError:
            raise KubectlError("kubectl is missing: install it, or put it on PATH.") from None
        except KubectlSilentError:
            raise KubectlError(
                f"kubectl {arguments[0]} took longer than {TIMEOUT_SECONDS:.0f} s: can the cluster be reached from here?"
            ) from None
        except UnansweredError as error:
            raise KubectlError(f"'kubectl {' '.join(arguments)}' failed: {error}") from None
        if done.code == 0:
            return done.output
        reason = " ".join(done.errors.split())
        for secret in secrets:
            reason = reason.replace(secret, "…") if secret else reason
        kind = NotFoundInClusterError if "(NotFound)" in reason else KubectlError
        raise kind(f"'kubectl {' '.join(arguments)}' failed: {reason or 'it gave no reason'}")
