"""Looks for secrets in a repository. Called by scripts/secret-scan; needs Python and git alone.

It knows names of files and forms of texts that are secrets beyond doubt, so that whatever it finds is worth an alarm. It tells where
and what kind, never the secret itself.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sens_cli.release.versions import ReleaseError
from tools.release.clone import Clone
from tools.release.program import parser_of

_NAMES: Final = re.compile(
    r"(?:^|/)(?:ssh-private(?:\..*)?|id_(?:rsa|dsa|ecdsa|ed25519)|[^/]+\.(?:pem|key|p12|pfx|kubeconfig)|kubeconfig|\.env)\Z"
)
_TEXTS: Final = {
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s*(?:\\n)?[A-Za-z0-9+/=\s\\]{40}"),
    "a token of GitHub": re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b"),
    "an access key of AWS": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a signed token (JWT)": re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}"),
    "a client's key in a kubeconfig": re.compile(r"\bclient-key-data: *[A-Za-z0-9+/=]{40}"),
    "a login of a registry": re.compile(r"\"auth\": *\"[A-Za-z0-9+/=]{16,}\""),
    "values of a Kubernetes Secret": re.compile(
        r"^kind: *[\"']?Secret\b(?:(?!^---)[\s\S])*?^(?:data|stringData): *\n(?: *#.*\n)* +[\w.-]+: *(?![\"']?(?:\{\{|<|…))\S{4}"
        r"|^(?:data|stringData): *\n(?: *#.*\n)* +[\w.-]+: *(?![\"']?(?:\{\{|<|…))\S{4}(?:(?!^---)[\s\S])*?^kind: *[\"']?Secret\b",
        re.MULTILINE,
    ),
}


class Finding(NamedTuple):
    """Where a secret is.

    Attributes:
        where: File and line, with the commit where it is one of the past.
        what: Its kind.
    """

    where: str
    what: str


def scan(name: str, text: str) -> Iterator[Finding]:
    """Yield what looks like a secret in a file."""
    if _NAMES.search(name):
        yield Finding(name, "a file that holds keys, by its name")
    for what, shape in _TEXTS.items():
        for match in shape.finditer(text):
            yield Finding(f"{name}:{text.count(chr(10), 0, match.start()) + 1}", what)


def work_tree(folder: Path) -> Iterator[Finding]:
    """Yield what is in the files that are committed or about to be."""
    listing = Clone(folder, checked=False).show("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in sorted(set(listing.split("\0")) - {""}):
        path = folder / name
        if path.is_file() and not path.is_symlink():
            yield from scan(name, path.read_bytes().decode("utf-8", "replace"))


def history(folder: Path) -> Iterator[Finding]:
    """Yield what is in any version of a file that can be reached from a branch or tag.

    Raises:
        ReleaseError: The clone does not hold them all.
    """
    clone = Clone(folder, checked=False)
    if clone.git("rev-parse", "--is-shallow-repository") == "true":
        raise ReleaseError("This clone is shallow: check out with the whole history (fetch-depth: 0).")
    listing = clone.show("rev-list", "--objects", "--all").splitlines()
    names = {one: name for one, _, name in (line.partition(" ") for line in listing) if name}
    batch = clone.raw("cat-file", "--batch", "--buffer", content="\n".join(names).encode())
    position = 0
    while position < len(batch):
        end = batch.index(b"\n", position)
        one, kind, size = batch[position:end].decode().split()
        start, position = end + 1, end + 1 + int(size) + 1
        if kind == "blob":
            text = batch[start : position - 1].decode("utf-8", "replace")
            yield from (Finding(f"{found.where} (blob {one[:12]})", found.what) for found in scan(names[one], text))


def main(arguments: Sequence[str]) -> int:
    """Print what was found; return 1 when there is something."""
    parser = parser_of(
        "scripts/secret-scan",
        "Looks for secrets in the files of a repository; prints where they are, never what they are.",
    )
    parser.add_argument("folder", nargs="?", type=Path, default=Path.cwd(), help="the working directory by default")
    parser.add_argument("--history", action="store_true", help="in everything that was ever committed as well")
    options = parser.parse_args(arguments)
    try:
        found = list(work_tree(options.folder))
        if options.history:
            found += [one for one in history(options.folder) if one not in found]
    except ReleaseError as error:
        print(f"scripts/secret-scan: {error}", file=sys.stderr)
        return 1
    for where, what in found:
        print(f"{where}: {what}", file=sys.stderr)
    if found:
        print(
            "A secret that was committed is known: revoke it and make a new one first, then take it out of the file.",
            file=sys.stderr,
        )
        return 1
    print("No secret was found.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
