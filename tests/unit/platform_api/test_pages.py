"""Pages lead from one to the next until all items were on one."""

from typing import NamedTuple

import pytest

from sens_platform_api.errors import InvalidRequestError
from sens_platform_api.pages import newest_page, page_by_name


class Item(NamedTuple):
    name: str
    id: int


ITEMS = [Item(f"n{index}", index) for index in range(1, 8)]


async def by_name(*, after: str, limit: int) -> list[Item]:
    return [item for item in ITEMS if item.name > after][:limit]


async def newest(*, before: int | None, limit: int) -> list[Item]:
    return [item for item in reversed(ITEMS) if before is None or item.id < before][:limit]


class TestPages:
    @pytest.mark.parametrize("limit", [1, 3, 6, 7, 8])
    async def test_have_each_item_once_in_order(self, limit: int) -> None:
        names, numbers = list[str](), list[int]()
        cursor: str | None = None
        while True:
            page = await page_by_name(by_name, cursor, limit)
            names += [item.name for item in page.items]
            if (cursor := page.next) is None:
                break
        while True:
            page = await newest_page(newest, cursor, limit)
            numbers += [item.id for item in page.items]
            if (cursor := page.next) is None:
                break
        assert names == [item.name for item in ITEMS]
        assert numbers == [item.id for item in reversed(ITEMS)]

    async def test_of_a_cursor_that_is_none_are_refused(self) -> None:
        for page in (page_by_name(by_name, "!", 1), newest_page(newest, "bg", 1)):
            with pytest.raises(InvalidRequestError):
                await page
