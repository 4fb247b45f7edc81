"""The load over HTTP: what is not answered with 2xx comes again as the same message, and counts only then."""

from collections import defaultdict

from support.http_server import Answer, Asked, serving
from support.servers import wait_until
from tools.torture.load import Record
from tools.torture.messages import TENANTS, Kind, NativeMessages
from tools.torture.posting import Poster

KEYS = {tenant: f"key of {tenant}" for tenant in TENANTS}


class TestPoster:
    def test_posts_a_message_again_until_it_is_stored(self) -> None:
        record = Record(NativeMessages())
        asked: defaultdict[bytes, list[Asked]] = defaultdict(list)

        def answer(request: Asked) -> Answer:
            asked[request.body].append(request)
            return Answer(204 if len(asked[request.body]) > 1 else 503)

        with serving(answer) as address, Poster(int(address.rpartition(":")[2]), record, KEYS, rate=1000):
            wait_until(lambda: record.posted >= 30, "messages are stored")
        assert record.owed().sum() == record.masks()[0].sum() == record.posted == len(asked)
        for body, requests in asked.items():
            sent = record.messages.message(record.messages.number_of(body))
            first, again = requests
            assert (first.target, *first.headers.items()) == (again.target, *again.headers.items())
            assert first.target == f"/{sent.topic}"
            assert first.headers["Authorization"] == f"Bearer {KEYS[sent.tenant]}"
            assert first.headers["Idempotency-Key"] == (None if sent.kind is Kind.TIMED else str(sent.number))
