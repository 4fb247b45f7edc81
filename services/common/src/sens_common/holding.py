"""Words for which hop holds the data when a worker can't pass it on."""

from collections.abc import Mapping


def holder(hops: Mapping[str, str | None], answers: Mapping[str, str]) -> str | None:
    """Return which hop holds and why, None when none does.

    Args:
        hops: Names of readiness checks and the hop each one speaks of, None when its answer names it; the first that fails is told.
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


def amount(number: int, noun: str) -> str:
    """Return a number of things.

    >>> amount(1200, "envelope"), amount(1, "lane")
    ('1,200 envelopes', '1 lane')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
