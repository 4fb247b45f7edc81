"""A report of Actility ThingPark with its token."""

import urllib.parse

from support import uplink_vectors

# Of the note of the vectors' file: made for its first case.
KEY = "00112233445566778899aabbccddeeff"
PARAMETERS = {
    "LrnDevEui": "20635F0108000496",
    "LrnFPort": "17",
    "LrnInfos": "TWA_1.1.AS-1-1",
    "AS_ID": "TWA_1.1.AS",
    "Time": "2026-04-07T08:49:51.551+00:00",
}
TOKEN = "470bfce5df068232fa9ed3354faf66a070f24e793dc373f0f8353fa3d521735f"
BODY = uplink_vectors.received(uplink_vectors.cases("actility")[0]).body


def query(parameters: dict[str, str] | None = None, token: str = TOKEN) -> str:
    """Return the query of an address with a token."""
    return urllib.parse.urlencode({**(parameters or PARAMETERS), "Token": token})
