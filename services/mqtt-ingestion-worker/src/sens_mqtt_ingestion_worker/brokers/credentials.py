"""Credentials in files, as a Kubernetes secret is mounted: a folder for each, ``TENANT/NAME/``, of which a tenant can only name its own."""

import ssl
import stat
from pathlib import Path
from typing import Final, NamedTuple

from sens_mqtt_ingestion_worker.pipeline import SourceUnavailableError

_MAX_FILE_BYTES: Final = 256 * 1024
_FILES: Final = ("username", "password", "ca.crt", "tls.crt", "tls.key")


class Credential(NamedTuple):
    """The contents of the files; None for one that is not there. What has one has the other: certificate and key."""

    username: str | None = None
    password: str | None = None
    authority: str | None = None
    certificate: bytes | None = None
    key: bytes | None = None

    def __repr__(self) -> str:
        """Tell nothing."""
        return "Credential(…)"


class CredentialFolder:
    """One tenant's credential of a name."""

    def __init__(self, folder: str, tenant: str, name: str) -> None:
        self._path = Path(folder, tenant, name)
        self._name = name

    def read(self) -> Credential:
        """Return what the files hold now.

        Raises:
            SourceUnavailableError: Something is missing, or can't be read: says which file.
        """
        try:
            is_folder = stat.S_ISDIR(self._path.stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            is_folder = False
        except OSError as error:
            raise _missing(f"credential {self._name}: {self._path} can't be read: {error.strerror}") from None
        if not is_folder:
            raise _missing(f"credential {self._name} is missing: there is no folder {self._path}")
        username, password, authority, certificate, key = (self._file(name) for name in _FILES)
        if not any((username, password, authority, certificate, key)):
            raise _missing(f"credential {self._name} is empty: {self._path} has none of the files {', '.join(_FILES)}")
        if password is not None and username is None:
            raise _missing(f"credential {self._name} has a password and no user: {self._path / 'username'} is missing")
        if (certificate is None) != (key is None):
            lacking = "tls.crt" if certificate is None else "tls.key"
            raise _missing(
                f"credential {self._name} has half of a client certificate: {self._path / lacking} is missing"
            )
        try:
            # A line's end at the end of a file is an editor's.
            user = None if username is None else username.decode().rstrip("\r\n")
            word = None if password is None else password.decode().rstrip("\r\n")
            trusted = None if authority is None else authority.decode()
        except UnicodeDecodeError:
            raise _missing(
                f"credential {self._name}: username, password and ca.crt in {self._path} have to be text"
            ) from None
        return Credential(user, word, trusted, certificate, key)

    def context(self, credential: Credential) -> ssl.SSLContext:
        """Return a client's context that trusts the credential's authority, or the system's where it has none, and presents its certificate.

        It reads the authorities of the system, which takes some milliseconds.

        Raises:
            SourceUnavailableError: A file holds no certificate or key.
        """
        try:
            context = ssl.create_default_context(cadata=credential.authority)
        except (ssl.SSLError, ValueError) as error:
            raise _unusable(f"{self._path / 'ca.crt'} holds no certificate: {_words(error)}") from None
        if credential.authority is not None:
            # An authority that somebody has made for a house often lacks what RFC 5280 wants of it, such as a key usage.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if credential.certificate is not None:
            try:
                context.load_cert_chain(self._path / "tls.crt", self._path / "tls.key", password=_no_passphrase)
            except (OSError, ValueError) as error:
                raise _unusable(
                    f"{self._path / 'tls.crt'} and tls.key are no certificate and its key: {_words(error)}"
                ) from None
        return context

    def _file(self, name: str) -> bytes | None:
        path = self._path / name
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_FILE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _missing(f"credential {self._name}: {path} can't be read: {error.strerror}") from None
        if len(content) > _MAX_FILE_BYTES:
            raise _missing(f"credential {self._name}: {path} has more than {_MAX_FILE_BYTES:,} bytes")
        return content


def _no_passphrase() -> str:
    """Refuse to ask the terminal for the passphrase of an encrypted key."""
    raise ValueError("the key is encrypted, and nobody can be asked for its passphrase")


def _words(error: Exception) -> str:
    return (error.reason or error.strerror or str(error)) if isinstance(error, ssl.SSLError) else str(error)


def _missing(text: str) -> SourceUnavailableError:
    return SourceUnavailableError(text, reason="credential_missing")


def _unusable(text: str) -> SourceUnavailableError:
    return SourceUnavailableError(text, reason="tls_error")
