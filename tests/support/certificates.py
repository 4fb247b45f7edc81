"""Certificates for tests, made by the openssl program."""

import shutil
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key, PEM."""

    file: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """Return the context of a server that presents it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file, self.key)
        return context


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "Test authority", *, key_usage: str | None = None) -> None:
        """Make its certificate; public authorities name their key usage, and those that people make for a house often do not."""
        self._folder = folder
        extension = None if key_usage is None else f"keyUsage=critical,{key_usage}"
        self.root = self._self_signed("root", f"/O={name}/CN={name}", extension)

    def self_signed(self, name: str, subject: str, host: str | None = None) -> Certificate:
        """Return a certificate that is signed by itself."""
        return self._self_signed(name, subject, None if host is None else f"subjectAltName=DNS:{host}")

    def _self_signed(self, name: str, subject: str, added: str | None) -> Certificate:
        certificate = Certificate(self._folder / f"{name}.crt", self._folder / f"{name}.private")
        extension = [] if added is None else ["-addext", added]
        self._openssl(
            "req", "-x509", "-subj", subject, "-days", "30", *extension, *self._new_key(certificate), "-out", str(certificate.file)
        )  # fmt: skip
        return certificate

    def certificate(self, host: str, days: int, *, usage: str = "serverAuth") -> Certificate:
        """Return the certificate of a host or a client, expired when the number of days is negative."""
        certificate = Certificate(self._folder / f"{host}-{days}.crt", self._folder / f"{host}-{days}.private")
        request, extensions = self._folder / "request", self._folder / "extensions"
        extensions.write_text(
            f"subjectAltName=DNS:{host}\nextendedKeyUsage={usage}\nauthorityKeyIdentifier=keyid\n", encoding="ascii"
        )
        self._openssl("req", "-new", "-subj", f"/CN={host}", *self._new_key(certificate), "-out", str(request))
        self._openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.root.file), "-CAkey", str(self.root.key), "-CAcreateserial",
            "-days", str(days), "-extfile", str(extensions), "-out", str(certificate.file),
        )  # fmt: skip
        return certificate

    @staticmethod
    def _new_key(certificate: Certificate) -> list[str]:
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", str(certificate.key)]

    @staticmethod
    def _openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority of the tests' own."""
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program makes the certificates, and is not there")
    return Authority(tmp_path_factory.mktemp("authority"))
