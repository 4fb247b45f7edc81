"""The accounts as a whole in a real database."""

from sens_common.settings import DatabaseSettings
from sens_telemetry_worker.letters import Quota
from sens_telemetry_worker.timescale.bookkeeping import Bookkeeping
from sens_telemetry_worker.timescale.database import Database, open_pool
from support.servers import owner_pool


class TestTenantsOfTheLastDay:
    async def test_are_told_once_by_the_messages_that_were_stored(self, database: DatabaseSettings) -> None:
        told: list[list[str]] = []

        async def run() -> None:
            async with owner_pool(database) as owner, open_pool(database, "test") as pool:
                await owner.execute(
                    """
                    INSERT INTO sens.tenants (name) VALUES ('today'), ('last-week'), ('rejected');
                    INSERT INTO sens.message_counts (tenant_id, day, backend, received, stored, duplicate, dead_lettered)
                    SELECT t.id, (now() AT TIME ZONE 'UTC')::date - days, 0, 1, stored, 0, 1 - stored
                    FROM (VALUES ('today', 0, 1), ('last-week', 7, 1), ('rejected', 0, 0)) AS c (name, days, stored)
                        JOIN sens.tenants t USING (name)
                    """
                )
                books = Bookkeeping(
                    Database(pool, database), Quota(1, 1, 0, 0), lambda tenants: told.append(list(tenants))
                )
                await books.observe()
                await books.observe()

        await run()
        assert told == [["today"]]
