"""Stops the worker when every tenant's messages are dead-lettered for what they contain: the sign of a release that can't read them.

Such a release must not empty the stream into the dead letters. It fails with all tenants and most of their devices; one tenant's malformed
messages, however many, are that tenant's, and one broken sensor's are that sensor's: they stop nobody. So each tenant has a window of its
own, its most recent messages of the last hour. A single tenant whose messages pass keeps the worker going, and so does one that is quiet:
whose messages were stored within the last day, and not rejected since.
"""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from sens_common.dead_letters import Reason
from sens_common.health import Problems
from sens_telemetry_worker import metrics

_GUARDED_REASONS: Final = frozenset(
    {
        Reason.MALFORMED_PAYLOAD,
        Reason.UNSUPPORTED_VALUE,
        Reason.INVALID_METRIC,
        Reason.TOO_LARGE,
        Reason.INVALID_TIME,
        Reason.IMPLAUSIBLE_TIME,
        Reason.CONFLICTING_VALUE,
        Reason.CODEC_ERROR,
        Reason.CODEC_LIMIT,
        Reason.REFUSED_BY_DATABASE,
    }
)
"""Reasons that may lie with what the worker makes of a message. All others lie with who sends where, and how much."""

WINDOW_SECONDS: Final = 3600.0
"""A tenant is active when a message of it was counted within this time."""
QUIET_SECONDS: Final = 86_400.0
"""For so long after its messages passed a tenant that sends nothing speaks for the release."""
TRIAL_SECONDS: Final = 60.0
"""Time between two batches of a worker that has stopped."""

_RELEASE: Final = "release"
_MAX_DEVICE_SHARE: Final = 0.5
_MIN_TENANTS: Final = 2
_ALERT_MESSAGES: Final = 100


def is_guarded_reason(reason: str) -> bool:
    """Tell whether the guard counts dead letters with this reason, because they speak against the worker."""
    return reason in _GUARDED_REASONS


class Verdict(Enum):
    """What is to become of a batch."""

    STORE = "store"
    HALT = "halt"
    """It is given back: every tenant's messages would be dead-lettered."""


class TopicCounts(NamedTuple):
    """How many messages of a tenant one batch has, by topic, which stands for a device; those left out whose reason is not guarded."""

    message_counts: dict[str, int]
    rejected_counts: dict[str, int]


class DeadLetterGuard:
    """Knows the share of rejected messages of each tenant.

    Attributes:
        problems: Has one while the worker has stopped.
    """

    def __init__(self, max_share: float, window_messages: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with no messages.

        Args:
            max_share: Of a tenant's messages in its window; above it the tenant counts as rejected. 1 switches the guard off.
            window_messages: Size of a window. The worker stops only when the windows of all tenants hold as many together.
            clock: Seconds.
        """
        self._max_share = max_share
        self._window_messages = window_messages
        self._clock = clock
        self._tenants: dict[str, _Window] = {}
        self._rejected: set[str] = set()
        self._passed_at: dict[str, float] | None = None
        self._trial_at = 0.0
        self.problems = Problems("dead_letter_share")

    def export_metrics(self) -> None:
        """Let the metric of rejected tenants look here whenever somebody asks for it."""
        metrics.REJECTED_TENANTS.set_function(self.conspicuous)

    @property
    def is_halting(self) -> bool:
        """Whether the worker has stopped, but for a batch every `TRIAL_SECONDS`."""
        return self.problems.problem is not None

    def expect(self, tenants: Iterable[str]) -> None:
        """Take note, once, of the tenants whose messages were stored before; until then the worker never stops."""
        if self._passed_at is None:
            self._passed_at = dict.fromkeys(tenants, self._clock())

    def note(self, batch: Mapping[str, TopicCounts]) -> None:
        """Take a batch into account, by tenant; each batch once."""
        now = self._clock()
        for tenant, counts in batch.items():
            self._tenants.setdefault(tenant, _Window(self._window_messages)).add(now, counts)
            self._decide(tenant)
            if self._passed_at is not None:
                if tenant in self._rejected:
                    self._passed_at.pop(tenant, None)
                else:
                    self._passed_at[tenant] = now

    def decide(self) -> Verdict:
        """Decide whether a batch may be stored now; a worker that has stopped stores one every `TRIAL_SECONDS`."""
        if (
            not self._all_rejected(_MIN_TENANTS)
            or self._message_count() < self._window_messages
            or self._somebody_is_quiet()
        ):
            self.problems.clear(_RELEASE)
            return Verdict.STORE
        now = self._clock()
        if not self.is_halting:
            self._trial_at = now + TRIAL_SECONDS
        self.problems.set(
            _RELEASE,
            "every tenant's messages would be dead-lettered",
            f"of each of {len(self._rejected)} tenants more than {self._max_share:.0%} of the recent messages, from most of its devices,"
            " would be dead-lettered (SENS_DEAD_LETTERS__MAX_SHARE): this release may be unable to read them; a batch a minute is tried,"
            " and the worker goes on by itself once a tenant's messages can be stored",
            level="error",
        )
        if now < self._trial_at:
            return Verdict.HALT
        self._trial_at = now + TRIAL_SECONDS
        return Verdict.STORE

    def conspicuous(self) -> int:
        """Return how many tenants have enough messages to tell that nearly all of them are rejected."""
        self._forget_old()
        enough = min(_ALERT_MESSAGES, self._window_messages)
        return sum(self._tenants[tenant].total >= enough for tenant in self._rejected)

    def rejects_everything(self) -> bool:
        """Tell whether every active tenant is rejected, be it only one: then the stream is worth keeping."""
        return self._all_rejected(1)

    def _all_rejected(self, at_least: int) -> bool:
        if len(self._rejected) < at_least:
            return False
        self._forget_old()
        return len(self._rejected) == len(self._tenants) >= at_least

    def _somebody_is_quiet(self) -> bool:
        if self._passed_at is None:
            return True
        oldest = self._clock() - QUIET_SECONDS
        self._passed_at = {tenant: at for tenant, at in self._passed_at.items() if at >= oldest}
        return bool(self._passed_at)

    def _message_count(self) -> int:
        return sum(window.total for window in self._tenants.values())

    def _decide(self, tenant: str) -> None:
        if self._tenants[tenant].is_rejected(self._max_share):
            self._rejected.add(tenant)
        else:
            self._rejected.discard(tenant)

    def _forget_old(self) -> None:
        oldest = self._clock() - WINDOW_SECONDS
        for tenant, window in list(self._tenants.items()):
            if window.forget_before(oldest):
                self._decide(tenant)
            else:
                del self._tenants[tenant]
                self._rejected.discard(tenant)


def count_by_topic(
    topics: Iterable[str], rejected_topics: Iterable[str], tenant_of: Mapping[str, str]
) -> dict[str, TopicCounts]:
    """Count the messages of a batch by tenant and topic.

    Args:
        topics: Of each message, those left out whose reason is not guarded.
        rejected_topics: Of each message that is to be dead-lettered, among these or among those of a batch before.
        tenant_of: The tenant of each topic.
    """
    batch: defaultdict[str, TopicCounts] = defaultdict(lambda: TopicCounts({}, {}))
    for topic, count in Counter(topics).items():
        batch[tenant_of[topic]].message_counts[topic] = count
    for topic, count in Counter(rejected_topics).items():
        batch[tenant_of[topic]].rejected_counts[topic] = count
    return batch


class _Window:
    """A tenant's recent messages; costs no more than what comes and goes."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._batches: deque[tuple[float, TopicCounts]] = deque()
        self._messages: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self.total = 0
        self._total_rejected = 0

    def is_rejected(self, max_share: float) -> bool:
        """Tell whether too many are rejected, and they come from most of the devices."""
        return self._total_rejected > max_share * self.total and len(self._rejected) > _MAX_DEVICE_SHARE * len(
            self._messages
        )

    def add(self, now: float, batch: TopicCounts) -> None:
        """Take the messages of a batch in, and those out that are too many."""
        self._batches.append((now, batch))
        self._change(batch, 1)
        while len(self._batches) > 1 and self.total - sum(self._batches[0][1].message_counts.values()) >= self._size:
            self._change(self._batches.popleft()[1], -1)

    def forget_before(self, oldest: float) -> bool:
        """Take out what is older; tell whether anything is left."""
        while self._batches and self._batches[0][0] < oldest:
            self._change(self._batches.popleft()[1], -1)
        return bool(self._batches)

    def _change(self, batch: TopicCounts, sign: int) -> None:
        self.total += sign * sum(batch.message_counts.values())
        self._total_rejected += sign * sum(batch.rejected_counts.values())
        for counter, counted in ((self._messages, batch.message_counts), (self._rejected, batch.rejected_counts)):
            for topic, count in counted.items():
                counter[topic] += sign * count
                if not counter[topic]:
                    del counter[topic]
