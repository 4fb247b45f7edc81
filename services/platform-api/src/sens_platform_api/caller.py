"""The caller of a request, found by its API key."""

from typing import Literal, NamedTuple

from starlette.types import Scope

type Access = Literal["read_only", "read_write"]


class Caller(NamedTuple):
    """The caller of a request.

    Attributes:
        key_id: Id of the key.
        tenant_id: Id of the tenant that the key belongs to.
        tenant: The tenant's name.
        key_name: The purpose of the key.
        access: Whether it may change data.
        address: The address that the request comes from.
        request_id: Identifies the request in log and audit.
    """

    key_id: int
    tenant_id: int
    tenant: str
    key_name: str = "unnamed"
    access: Access = "read_write"
    address: str | None = None
    request_id: str | None = None

    @property
    def actor(self) -> str:
        """The caller's name in the audit."""
        return f"key {self.key_id} ({self.key_name})"


def bearer_key(scope: Scope) -> str | None:
    """Return the key that the request carries (RFC 6750, section 2.1), None without one."""
    value = next((value for name, value in scope["headers"] if name == b"authorization"), b"").decode("latin-1")
    scheme, _, key = value.partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None
