"""What parent and child say to each other. Requests and answers are a 4-byte length (big-endian), a byte that names the kind, and a body.

The parent sends `LOAD` (SHA-256, source) and `RUN` (SHA-256, a flag, a number of calls, the calls as JSON). The child answers `READY` once; then
to a `LOAD` with `LOADED` or `FAILED`; to a `RUN` with `RESULTS` and `LIMIT` answers that follow the order of the calls, or with `MISSING`.
"""

import struct
from typing import Final

LENGTH: Final = struct.Struct(">I")
RUN_HEADER: Final = struct.Struct(">32s?I")
"""SHA-256, whether each call has an answer of its own, and how many calls follow."""
SHA256_BYTES: Final = 32

LOAD: Final = b"L"
RUN: Final = b"R"

READY: Final = b"r"
"""The body is `1` where system calls are filtered, else `0`."""
REFUSED: Final = b"x"
"""The child can't work; the body says why."""
LOADED: Final = b"l"
"""The body is the index of the codec's form (`FORMS`), or -1."""
FAILED: Final = b"f"
"""The source can't be compiled or its first lines fail; the body is the failure, as in `RESULTS`."""
MISSING: Final = b"m"
"""The codec is not loaded (any more)."""
RESULTS: Final = b"s"
"""A JSON array with an element for each of the next calls: an object of fields; `["w", fields, warnings]`; or a failure `[kind, text, stack]`."""
LIMIT: Final = b"t"
"""The next call was ended; the body is the engine's words."""

MAX_ANSWER_BYTES: Final = 2 << 20

FORMS: Final = ("decodeUplink(input)", "Decoder(bytes, port)", "Decode(fPort, bytes, variables)")
"""The forms of codecs: The Things Stack 3 and ChirpStack 4, The Things Network 2, ChirpStack 3."""
MAX_BATCH_CALLS: Final = 256
