"""What the stream ``CONTROL`` holds: decisions that must outlive a restore of the database, written before they are carried out.

An erasure names a device by a hash. After a restore, the platform API carries out again what the database has lost.
"""

import hashlib
from typing import Final

import msgspec

from sens_common.names import CONTROL_SUBJECT

ERASURE_SUBJECT: Final = f"{CONTROL_SUBJECT}.erasure"


class Erasure(msgspec.Struct, frozen=True):
    """Nothing of a device that was received before a time is stored any more; JSON object in the stream.

    Attributes:
        tenant_id: Id of its tenant.
        device_hash: `device_hash` of its name, hexadecimal.
        erased_at: Microseconds since the epoch.
    """

    tenant_id: int
    device_hash: str
    erased_at: int


_decoder = msgspec.json.Decoder(Erasure)


def device_hash(name: str) -> bytes:
    """Return what an erasure keeps of a device's canonical name: its SHA-256."""
    return hashlib.sha256(name.encode()).digest()


def encode(erasure: Erasure) -> bytes:
    """Return the message of an erasure."""
    return msgspec.json.encode(erasure)


def decode(body: bytes) -> Erasure:
    """Return the erasure that a message holds.

    Raises:
        ValueError: The message is not an erasure.
    """
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError as error:  # a ValidationError is a DecodeError
        raise ValueError(f"not an erasure: {error}") from error
