"""Maps of binary formats as JSON has them, for the rules that read JSON."""

from collections.abc import Mapping
from typing import Final

from sens_common.dead_letters import Reason
from sens_common.errors import RejectedMessageError
from sens_common.names import shown

_PLAIN: Final = frozenset({bool, int, float, str, bytes, type(None)})


def with_text_keys(document: object) -> object:
    """Return a document whose keys are texts: integers are written as digits.

    Args:
        document: Not deeper than Python's stack.

    Raises:
        RejectedMessageError: A key is neither text nor integer, two keys are written alike, or a value is of another kind.
    """
    kind = type(document)
    if kind is dict:
        assert isinstance(document, dict)  # noqa: S101 - for mypy
        return _members(document)
    if kind is list:
        assert isinstance(document, list)  # noqa: S101 - for mypy
        return [with_text_keys(element) for element in document]
    if kind in _PLAIN:
        return document
    if kind.__name__ == "UndefinedType":
        return None
    raise RejectedMessageError(
        Reason.UNSUPPORTED_VALUE, f"a value is a {kind.__name__}: {document!r:.60}; send numbers, booleans and texts"
    )


def _members(members: Mapping[object, object]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in members.items():
        if type(key) is str:
            name = key
        elif type(key) is int:
            name = str(key)
        else:
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD, f"the key {key!r:.80} is neither a text nor an integer"
            )
        if name in found:
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD, f"the key {shown(name)} is there as text and as integer"
            )
        found[name] = value if type(value) in _PLAIN else with_text_keys(value)
    return found
