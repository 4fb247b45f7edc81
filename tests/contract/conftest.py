"""The data of two tenants, in memory and in PostgreSQL, which the suites of several ports share."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sens_common.settings import DatabaseSettings
from support.memory_tenant_data import MemoryTenantData
from support.stored_rows import Form
from support.tenant_data import Opener, TenantData, data_in_database


@asynccontextmanager
async def _open_memory() -> AsyncIterator[TenantData]:
    yield MemoryTenantData()


@pytest.fixture(params=["memory", "postgresql"])
def opened_data(request: pytest.FixtureRequest) -> Opener:
    """Open the tenants demo and other, which have no data yet."""
    if request.param == "memory":
        return _open_memory
    settings: DatabaseSettings = request.getfixturevalue("database")
    return lambda: data_in_database(settings)


@pytest.fixture(params=["memory", *Form])
def opened_in_each_form(request: pytest.FixtureRequest) -> Opener:
    """Open the tenants demo and other, whose measurements are in memory, or in rows of one form or the other or both."""
    if request.param == "memory":
        return _open_memory
    settings: DatabaseSettings = request.getfixturevalue("database")
    return lambda: data_in_database(settings, request.param)
