"""Tries an image as a cluster runs it: it starts without rights on a read-only root, answers /version, and stops on SIGTERM."""

import json
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from tools.images.builders import Builder, Run
from tools.images.catalogue import Image
from tools.images.source import Commit, ImageError
from tools.ports import free_port
from tools.program import Program

_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 20


def try_image(builder: Builder, image: Image, reference: str, commit: Commit) -> float:
    """Start an image, ask its version, stop it; return how many seconds it took to answer.

    Raises:
        ImageError: It did not start, answered something else, or did not stop; its own output follows.
    """
    with tempfile.TemporaryDirectory(prefix="sens-trial-") as folder:
        log = Path(folder) / "log"
        try:
            return _try(builder, image, reference, commit, log)
        except ImageError as error:
            written = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            raise ImageError("\n".join([f"{image.name}: {error}", *written.splitlines()[-30:]])) from None


def _try(builder: Builder, image: Image, reference: str, commit: Commit, log: Path) -> float:
    names = (image.port_setting, *image.further_ports)
    ports = {name: free_port() for name in names}
    environment = dict(image.trial) | {name: str(port) for name, port in ports.items()}
    started = time.monotonic()
    with builder.start(Run(reference, environment, image.writable), log) as process:
        answer = answer_of(process, f"http://127.0.0.1:{ports[image.port_setting]}/version")
        seconds = time.monotonic() - started
        expected = {"name": image.name, "version": commit.product_version, "product_commit": commit.revision}
        if answer != expected:
            raise ImageError(f"/version answers {answer}, not {expected}.")
        process.ask_to_end()
        code = process.wait(_STOP_SECONDS)
    if code is None:
        raise ImageError(f"still running {_STOP_SECONDS} s after SIGTERM.")
    if code != 0:
        raise ImageError(f"ended with exit code {code} after SIGTERM, not with 0.")
    return seconds


def answer_of(process: Program, url: str) -> object:
    """Return a JSON answer of a process that is starting.

    Raises:
        ImageError: It ended, or did not answer in time.
    """
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if (code := process.exit_code) is not None:
            raise ImageError(f"ended with exit code {code} instead of answering {url}.")
        try:
            with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - this machine's own address
                answer: object = json.load(response)
                return answer
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    raise ImageError(f"no answer from {url} within {_START_SECONDS} s.")
