"""Lists in pages: of what has names, by these, and of what has numbers, the newest first."""

from typing import NamedTuple, Protocol

from sens_platform_api.parameters import cursor_number, decode_cursor, encode_cursor


class Page[Item](NamedTuple):
    """Some items, and the cursor of the next page; None on the last."""

    items: list[Item]
    next: str | None


class _Named(Protocol):
    @property
    def name(self) -> str: ...


class _Numbered(Protocol):
    @property
    def id(self) -> int: ...


class _ByName[Item](Protocol):
    async def __call__(self, *, after: str, limit: int) -> list[Item]: ...


class _Newest[Item](Protocol):
    async def __call__(self, *, before: int | None, limit: int) -> list[Item]: ...


async def page_by_name[Item: _Named](read: _ByName[Item], cursor: str | None, limit: int) -> Page[Item]:
    """Return a page of items by their names.

    Args:
        read: Returns items, at most so many, whose names come after one.
        cursor: Of the page; None for the first.
        limit: How many items it has at most.

    Raises:
        InvalidRequestError: The cursor is none.
    """
    found = await read(after=decode_cursor(cursor, 1)[0] if cursor else "", limit=limit + 1)
    return Page(found[:limit], encode_cursor(found[limit - 1].name) if len(found) > limit else None)


async def newest_page[Item: _Numbered](read: _Newest[Item], cursor: str | None, limit: int) -> Page[Item]:
    """Return a page of items, the newest first.

    Args:
        read: Returns items, at most so many, whose numbers are below one.
        cursor: Of the page; None for the first.
        limit: How many items it has at most.

    Raises:
        InvalidRequestError: The cursor is none.
    """
    before = cursor_number(decode_cursor(cursor, 1)[0]) if cursor else None
    found = await read(before=before, limit=limit + 1)
    return Page(found[:limit], encode_cursor(str(found[limit - 1].id)) if len(found) > limit else None)
