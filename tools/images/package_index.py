"""The package index as this machine's pip is set up for it, handed to a build as secrets that end up in no layer."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

# Where the Dockerfile mounts the secret `certificates`.
_CERTIFICATES: Final = "/run/secrets/certificates"
_OPTIONS: Final = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")


def secrets(folder: Path, environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Write the files of a build's secrets into a folder that only this user can read; return them by the secrets' names."""
    settings = _pip_settings()
    settings |= {
        option: environment[f"PIP_{option.replace('-', '_').upper()}"]
        for option in (*_OPTIONS, "cert")
        if f"PIP_{option.replace('-', '_').upper()}" in environment
    }
    lines = ["[global]", *(f"{option} = {settings[option]}" for option in _OPTIONS if option in settings)]
    files = {"pip.conf": folder / "pip.conf"}
    certificates = Path(settings.get("cert") or environment.get("SSL_CERT_FILE") or "")
    if certificates.is_file():
        files["certificates"] = folder / "certificates"
        shutil.copyfile(certificates, files["certificates"])
        lines.append(f"cert = {_CERTIFICATES}")
    files["pip.conf"].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return files


def _pip_settings() -> dict[str, str]:
    """Return what pip's configuration files set, by option; a setting for one command only is left out."""
    result = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    settings = {}
    for line in result.stdout.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section == "global":
            settings[option] = str(ast.literal_eval(value))
    return settings
