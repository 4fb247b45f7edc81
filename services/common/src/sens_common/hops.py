"""Says which hop is the bottleneck when a worker can't pass messages on."""

from collections.abc import Mapping


def blocking_hop(hops: Mapping[str, str | None], answers: Mapping[str, str]) -> str | None:
    """Return which hop is the bottleneck and why, None when none is.

    Args:
        hops: Names of readiness checks and the hop of each, None when its answer names the hop; the first one that fails is told.
        answers: Of the readiness checks, ``ok`` or what is wrong.
    """
    for check, hop in hops.items():
        answer = answers.get(check, "ok")
        if answer != "ok" and hop is None:
            return answer
        if answer != "ok":
            full = "maximum bytes exceeded" in answer  # JSStreamStoreFailedF, nats-server server/errors.json
            return f"{hop} {'is full' if full else 'holds'}: {answer}"
    return None


def amount(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> amount(1200, "envelope"), amount(1, "lane")
    ('1,200 envelopes', '1 lane')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
