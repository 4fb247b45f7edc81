"""What holds for all SQL and all connections of the platform."""

import re

from support.services import ROOT

SOURCES = sorted(ROOT.glob("services/*/src/**/*.py"))


def test_nothing_takes_advisory_locks_but_a_migration_that_databases_have_applied() -> None:
    """Every login may take them where no superuser has forbidden it, and keep others waiting."""
    taking = re.compile(r"pg_(try_)?advisory_(xact_)?(un)?lock")
    found = {
        path.name
        for path in (*SOURCES, *ROOT.glob("services/*/src/**/*.sql"))
        if taking.search(path.read_text(encoding="utf-8"))
    }
    assert found == {"0002_measurements.postgresql.sql", "privileges.py"}


def test_every_pool_gives_connections_back_without_an_advisory_function() -> None:
    """asyncpg's own text for that calls one, which the roles may not; the connections of `connect_arguments` have another text."""
    pools = [text for path in SOURCES if "create_pool(" in (text := path.read_text(encoding="utf-8"))]
    assert pools
    assert all(text.count("create_pool(") <= text.count("connect_arguments(") for text in pools)
