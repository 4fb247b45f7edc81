"""Whether images are signed by the workflow that publishes them: asked of cosign, before production gets them."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from sens_cli.release.record import PinnedImage
from sens_cli.release.versions import ReleaseError
from tools.release.program import printable
from tools.release.registry import host_of
from tools.release.registry_http import Credentials

ISSUER: Final = "https://token.actions.githubusercontent.com"
"""Who vouches for a workflow of GitHub (docs.github.com, "OpenID Connect")."""

_TIMEOUT_SECONDS: Final = 180
_SHOWN: Final = 300


class Signer:
    """Who has to have signed, or the reason why nobody is asked.

    Args:
        identity: The workflow's, as its certificates have it; the scripts of the GitOps repository name it. Without one nothing is
            asked, and nothing is said.
        waived: Why signatures are not verified this time.
    """

    def __init__(self, identity: str | None, waived: str | None = None) -> None:
        self._identity = identity
        self._waived = " ".join((waived or "").split())

    @classmethod
    def of(cls, identity: str | None, waived: str | None) -> Self:
        """Read both as they are given on a command line.

        Raises:
            ReleaseError: A reason is there and empty.
        """
        if waived is not None and not waived.strip():
            raise ReleaseError("--unsigned-because needs a reason: it is in the pull request's text.")
        return cls(identity, waived)

    def verify(self, images: Mapping[str, PinnedImage], environment: Mapping[str, str] = os.environ) -> str:
        """See that each image is signed, and return a sentence about it, with a space before it.

        Raises:
            ReleaseError: One is not, or it can't be known.
        """
        if self._waived:
            return f" The images' signatures were not verified: {self._waived}."
        if self._identity is None:
            return ""
        for name, image in images.items():
            credentials = Credentials.from_environment(host_of(image.repository), environment)
            with _docker_configuration(host_of(image.repository), credentials) as variables:
                self._verify(name, f"{image.repository}@{image.digest}", {**environment, **variables})
        return f" The images are signed by {self._identity}."

    def _verify(self, name: str, reference: str, environment: Mapping[str, str]) -> None:
        command = ["cosign", "verify", f"--certificate-identity={self._identity}"]
        command += [f"--certificate-oidc-issuer={ISSUER}", "--output=json", reference]
        otherwise = "If they are to be deployed all the same, say why: --unsigned-because REASON."
        try:
            done = subprocess.run(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=_TIMEOUT_SECONDS,
            )
        except OSError as error:
            raise ReleaseError(
                f"cosign can't be started ({error.strerror}), and the images' signatures can't be verified: install it "
                f"(docs.sigstore.dev, 'Installation'). {otherwise}"
            ) from None
        except subprocess.TimeoutExpired:
            raise ReleaseError(
                f"cosign gave no answer about {reference} in {_TIMEOUT_SECONDS} s: run this again. {otherwise}"
            ) from None
        if done.returncode != 0:
            said = printable(done.stderr)
            raise ReleaseError(
                f"{name} ({reference}) is not known to be signed by {self._identity}: {said[-_SHOWN:] or 'cosign gave no reason'}. "
                "Find out who pushed it: what the workflow publish-images has published is signed before it has a tag. "
                f"{otherwise}"
            )


@contextmanager
def _docker_configuration(host: str, credentials: Credentials | None) -> Iterator[Mapping[str, str]]:
    """Hand cosign the login by a file that nobody else reads; without one it takes docker's own."""
    if credentials is None:
        yield {}
        return
    login = credentials.header.removeprefix("Basic ")
    with tempfile.TemporaryDirectory(prefix="sens-cosign-") as folder:
        file = Path(folder) / "config.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps({"auths": {host: {"auth": login}}}), encoding="utf-8")
        yield {"DOCKER_CONFIG": folder}
