"""A GET request over a plain socket: what the supervisor asks its components, without loading an HTTP library for it."""

import asyncio
import contextlib
from typing import Final

_LARGEST_ANSWER: Final = 4 << 20
_TIMEOUT_SECONDS: Final = 2.0


async def get(port: int, path: str, *, host: str = "127.0.0.1", key: str | None = None) -> tuple[int, bytes]:
    """Return status and body of an answer (HTTP/1.0, RFC 1945, so that the answer ends with the connection).

    Raises:
        OSError: Nobody answers, or not in time, or not in HTTP.
    """
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    request = f"GET {path} HTTP/1.0\r\nHost: {f'[{host}]' if ':' in host else host}:{port}\r\nAccept: */*\r\n{authorization}\r\n"
    async with asyncio.timeout(_TIMEOUT_SECONDS):
        reader, writer = await asyncio.open_connection(host, port, limit=_LARGEST_ANSWER)
        try:
            writer.write(request.encode())
            answer = await reader.read(_LARGEST_ANSWER)
            while chunk := await reader.read(_LARGEST_ANSWER):
                answer += chunk
                if len(answer) > _LARGEST_ANSWER:
                    raise OSError(f"the answer of port {port} is too large")
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    head, separator, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split()
    if not separator or len(words) < 2 or not words[1].isdigit():  # noqa: PLR2004 - version and status
        raise OSError(f"the answer of port {port} is not HTTP")
    return int(words[1]), body
