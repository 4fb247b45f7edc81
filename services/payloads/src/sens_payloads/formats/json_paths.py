"""Members of a document by path: ``params.ts``, and ``phases.0`` for an array's element."""

import re
from typing import Final

_POSITION: Final = re.compile(r"\d{1,4}", re.ASCII)
ABSENT: Final = object()
"""There is no such member; null is one."""

type Keys = tuple[str, ...]


def find(document: object, keys: Keys) -> object:
    """Return the member, `ABSENT` where there is none."""
    for key in keys:
        if isinstance(document, dict):
            document = document.get(key, ABSENT)
        elif isinstance(document, list) and _POSITION.fullmatch(key) and int(key) < len(document):
            document = document[int(key)]
        else:
            return ABSENT
    return document


def take(document: object, keys: Keys) -> object:
    """Remove the member, or set it to null in an array; return what `find` would."""
    if not keys:
        return document
    parent = find(document, keys[:-1]) if len(keys) > 1 else document
    if isinstance(parent, dict):
        return parent.pop(keys[-1], ABSENT)
    found = find(parent, keys[-1:])
    if isinstance(parent, list) and found is not ABSENT:
        parent[int(keys[-1])] = None
    return found
