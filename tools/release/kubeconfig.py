"""Writes a kubeconfig for the ServiceAccount deploy-test. Called by scripts/kubeconfig-deploy-test of the GitOps repository.

The token is bound to the ServiceAccount and ends by itself (TokenRequest, kubernetes.io/docs/reference/kubernetes-api). It is written
into the file and printed nowhere.
"""

import argparse
import base64
import binascii
import json
import os
import sys
import tempfile
import urllib.parse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from sens_cli.release.versions import ReleaseError
from tools.release.kubectl import ClusterAdministration
from tools.release.program import parser_of, run_program

_NAME: Final = "scripts/kubeconfig-deploy-test"
NAMESPACE: Final = "sens-test"
ACCOUNT: Final = "deploy-test"
MAXIMUM_HOURS: Final = 24 * 30
_LOCAL: Final = ("127.0.0.1", "::1", "localhost", "0.0.0.0")  # noqa: S104 - compared, not listened on


def cluster_of(kubectl: ClusterAdministration, server: str | None) -> dict[str, object]:
    """Return the cluster's entry of a kubeconfig: address and certificate authority.

    Raises:
        ReleaseError: There is none, or its address means another machine elsewhere.
    """
    document = json.loads(kubectl.run("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    try:
        cluster = document["clusters"][0]["cluster"]
        address = server or str(cluster["server"])
    except (KeyError, IndexError, TypeError):
        raise ReleaseError("kubectl has no cluster: set KUBECONFIG to the administrator's file.") from None
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "https" or not parts.hostname:
        raise ReleaseError(f"The cluster's address is {address!r}: it must be https://host:port; set it with --server.")
    if parts.hostname in _LOCAL and server is None:
        raise ReleaseError(
            f"The cluster's address is {address}, which means something else on every machine: say with --server where it is "
            "reached from, for example https://192.0.2.1:6443, or confirm this one with it."
        )
    authority = {key: cluster[key] for key in ("certificate-authority-data",) if key in cluster}
    return {"server": address, **authority}


def kubeconfig(cluster: dict[str, object], token: str) -> str:
    """Return the file: JSON, which is YAML as well."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sens", "cluster": cluster}],
        "users": [{"name": ACCOUNT, "user": {"token": token}}],
        "contexts": [{"name": ACCOUNT, "context": {"cluster": "sens", "user": ACCOUNT, "namespace": NAMESPACE}}],
        "current-context": ACCOUNT,
    }
    return json.dumps(document, indent=2) + "\n"


def end_of(token: str) -> datetime:
    """Return when a token ends: the claim ``exp`` (RFC 7519, section 4.1.4). The cluster may have shortened what was asked for.

    Raises:
        ReleaseError: It is not a token with an end.
    """
    try:
        claims = token.split(".")[1]
        document = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        return datetime.fromtimestamp(document["exp"], UTC)
    except (IndexError, ValueError, binascii.Error, KeyError, TypeError):
        raise ReleaseError("The cluster gave a token without an end: nothing was written.") from None


def write(file: Path, text: str, *, replace: bool) -> None:
    """Write a file that its owner alone can read, whole or not at all.

    Raises:
        ReleaseError: It exists, or can't be written.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".kubeconfig-")  # mode 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(text)
            if replace:
                Path(name).replace(file)
            else:
                file.hardlink_to(name)  # fails where there is something, a symbolic link included
        finally:
            Path(name).unlink(missing_ok=True)
    except FileExistsError:
        raise ReleaseError(f"{file} exists: name another file, or use --replace. Nothing was written.") from None
    except OSError as error:
        raise ReleaseError(f"{file} can't be written: {error.strerror}.") from error


def make(options: argparse.Namespace) -> datetime:
    """Write the file, and return when it stops to work.

    Raises:
        ReleaseError: It was not written.
    """
    if not 1 <= options.hours <= MAXIMUM_HOURS:
        raise ReleaseError(f"--hours {options.hours}: choose 1 to {MAXIMUM_HOURS}.")
    kubectl = ClusterAdministration(options.context)
    cluster = cluster_of(kubectl, options.server)
    asked = ("create", "token", ACCOUNT, f"--namespace={NAMESPACE}", f"--duration={options.hours}h")
    token = kubectl.run(*asked).strip()
    end = end_of(token)
    write(options.file, kubeconfig(cluster, token), replace=options.replace)
    return end


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is wrong ends the program with exit code 2."""
    parser = parser_of(
        _NAME,
        f"Writes a kubeconfig for the ServiceAccount {ACCOUNT}, which looks after {NAMESPACE} and nothing else. "
        "It needs an administrator's kubectl.",
    )
    parser.add_argument("file", type=Path, help="where it is written to, readable by you alone")
    parser.add_argument(
        "--hours", type=int, default=8, help=f"how long it works, at most {MAXIMUM_HOURS}; 8 by default"
    )
    parser.add_argument("--server", help="address of the cluster as seen from where the file will be used")
    parser.add_argument("--replace", action="store_true", help="overwrite the file")
    parser.add_argument("--context", help="context of kubectl; the current one by default")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Write the file and say how long it works; return 1 when that was refused."""
    options = parse(arguments)

    def said() -> str:
        end = make(options)
        return f"{options.file} works until {end:%Y-%m-%d %H:%M} UTC. It is as good as a password: keep it out of Git."

    return run_program(_NAME, said)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
