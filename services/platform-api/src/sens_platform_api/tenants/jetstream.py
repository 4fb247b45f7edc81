"""The JetStream bucket from which the ingestion workers read the tenants' limits (`sens_common.tenant_limits`)."""

from typing import NamedTuple

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import KeyValueConfig
from nats.js.errors import NoKeysError, NotFoundError
from nats.js.kv import KeyValue

from sens_common.errors import UnavailableError, words_of
from sens_common.tenant_limits import BUCKET, TenantLimits, encode, key


class State(NamedTuple):
    """Identifies one content of the bucket: it changes with every change, and when the bucket is made again."""

    created: str
    last_sequence: int


class LimitsBucket:
    """Brings the JetStream bucket to a wanted content."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._reached: tuple[State, dict[str, bytes]] | None = None

    async def bring_to(self, limits: dict[str, TenantLimits]) -> int:
        """Write what differs; return how many keys were written or deleted. It asks little when nothing has changed.

        Raises:
            UnavailableError: NATS can't be used.
        """
        wanted = {key(tenant): encode(each) for tenant, each in limits.items()}
        try:
            return await self._bring_to(wanted)
        except (NatsError, TimeoutError) as error:
            raise UnavailableError(f"NATS can't be used: {words_of(error)}") from error

    async def _bring_to(self, wanted: dict[str, bytes]) -> int:
        bucket = await self._bucket()
        if self._reached == (await self._state(), wanted):
            return 0
        present = await _read(bucket)
        changed = {name: value for name, value in wanted.items() if present.get(name) != value}
        for name, value in changed.items():
            await bucket.put(name, value)
        gone = present.keys() - wanted.keys()
        for name in gone:
            await bucket.delete(name)
        self._reached = (await self._state(), wanted)
        return len(changed) + len(gone)

    async def _bucket(self) -> KeyValue:
        jetstream = self._client.jetstream()
        try:
            return await jetstream.key_value(BUCKET)
        except NotFoundError:  # a BucketNotFoundError is one
            return await jetstream.create_key_value(
                KeyValueConfig(bucket=BUCKET, description="Limits of tenants, written by the API from the database")
            )

    async def _state(self) -> State:
        info = await self._client.jetstream().stream_info(f"KV_{BUCKET}")
        return State(str(info.created), info.state.last_seq)


async def _read(bucket: KeyValue) -> dict[str, bytes]:
    try:
        names = await bucket.keys()
    except NoKeysError:
        return {}
    return {name: (await bucket.get(name)).value or b"" for name in names}
