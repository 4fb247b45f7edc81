"""Settings of the telemetry worker."""

from pydantic import Field

from sens_common.logins import WorkerLoginSettings, logged_in
from sens_common.settings import DatabaseSettings, Group, NatsSettings, OperationsSettings, ServiceSettings
from sens_payloads.codecs.settings import CodecSettings


class BatchSettings(Group):
    """How much is stored at once."""

    messages: int = Field(
        5000,
        ge=1,
        le=100_000,
        description="A batch is stored when it holds this many messages; up to twice as many where some are dead-lettered.",
    )
    linger_milliseconds: int = Field(
        5, ge=0, le=5000, description="How long a batch that is not full waits for more after its first message."
    )
    linger_milliseconds_behind: int = Field(
        100, ge=0, le=5000, description="The same while the worker is behind: larger batches let it catch up."
    )
    lanes: int = Field(
        2, ge=1, le=16, description="Batches under way at the same time; each has a database connection of its own."
    )


class DeadLetterSettings(Group):
    """When the worker stops instead of dead-lettering everything, and the quota of dead letters without a tenant."""

    max_share: float = Field(
        0.9,
        gt=0,
        le=1,
        description="Largest share of a tenant's recent messages that may be dead-lettered for what they contain, if most of its devices"
        " are concerned. Where every active tenant is above it, and there are two or more, the worker stops, reports not ready, and tries"
        " a batch a minute. 1 switches this off.",
    )
    window_messages: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="Number of a tenant's recent messages, of the last hour, that the share is taken of. The worker stops only when all"
        " tenants together had as many.",
    )
    unknown_count_limit: int = Field(
        100_000,
        ge=0,
        description="Dead letters whose topics name no tenant that exists, all together; more are discarded and counted. A tenant's own limits"
        " are in the database.",
    )
    unknown_byte_limit: int = Field(
        268_435_456, ge=0, description="Size of these; beyond it, only the first 4 KiB of a payload are kept."
    )


class HistorySettings(Group):
    """How long stored messages stay in the stream, from which they could be decoded and stored again."""

    history_seconds: int = Field(
        86_400, ge=60, le=31_536_000, description="Stored messages older than this are removed from the stream."
    )
    trim_interval_seconds: float = Field(5, gt=0, le=86_400, description="Time between two looks at the stream.")


class RollupSettings(Group):
    """The rollups of hours and days."""

    settling_seconds: float = Field(
        120,
        ge=0,
        le=86_400,
        description="How long after its end an hour is added to the rollups. Readings that come later cost a little more.",
    )
    interval_seconds: float = Field(
        15, gt=0, le=3600, description="Time between two looks for hours that are over, and for what has changed."
    )


class TelemetrySettings(ServiceSettings):
    """Settings of the telemetry worker."""

    nats: NatsSettings = NatsSettings()
    database: DatabaseSettings = DatabaseSettings()
    worker_login: WorkerLoginSettings = WorkerLoginSettings()
    operations: OperationsSettings = OperationsSettings()
    decoder: str = Field("native", max_length=63, description="Payload format.")
    batch: BatchSettings = BatchSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    history: HistorySettings = HistorySettings()
    rollups: RollupSettings = RollupSettings()
    codecs: CodecSettings = CodecSettings()

    def worker_database(self) -> DatabaseSettings:
        """Return the settings of the database with the worker's own login, where it has one."""
        return logged_in(self.database, self.worker_login)
