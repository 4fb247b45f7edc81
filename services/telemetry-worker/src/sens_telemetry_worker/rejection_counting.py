"""What the guard is told of a batch: how many messages of each tenant are rejected, first by the worker and then by the database."""

from sens_telemetry_worker.accounting import WrittenPart
from sens_telemetry_worker.batch import Batch
from sens_telemetry_worker.guard import DeadLetterGuard, TopicCounts, Verdict, count_by_topic, is_guarded_reason


def judge(guard: DeadLetterGuard, batch: Batch) -> Verdict:
    """Tell the guard which messages the worker rejects; return whether the batch may be stored."""
    guard.note(rejections_found_by_worker(batch))
    return guard.decide()


def note_rejections_of_database(guard: DeadLetterGuard, batch: Batch, written: WrittenPart) -> None:
    """Tell the guard which messages only the database has rejected."""
    guard.note(rejections_found_by_database(batch, written))


def rejections_found_by_worker(batch: Batch) -> dict[str, TopicCounts]:
    """Count the messages of a batch by tenant, and those that can't be decoded; those left out whose reason is not guarded."""
    interpreted = batch.interpreted
    topics = [message.topic for message in interpreted.messages]
    senders = interpreted.senders
    if not interpreted.rejections:
        found = dict(zip(topics, interpreted.devices, strict=True))
        return count_by_topic(
            topics, (), {topic: each.tenant.name for topic, each in {**found, **senders}.items() if each is not None}
        )
    not_counted = {each.message_index for each in interpreted.rejections if not is_guarded_reason(each.reason)}
    counted = [
        topics[index]
        for index, device in enumerate(interpreted.devices)
        if (device is not None or (senders and topics[index] in senders)) and index not in not_counted
    ]
    rejected = [topics[each.message_index] for each in interpreted.rejections if each.message_index not in not_counted]
    tenants = {topic: device.tenant.name for topic, device in zip(topics, interpreted.devices, strict=True) if device}
    tenants |= {topic: sender.tenant.name for topic, sender in senders.items()}
    return count_by_topic(counted, rejected, tenants)


def rejections_found_by_database(batch: Batch, written: WrittenPart) -> dict[str, TopicCounts]:
    """Count the messages of a part that only the database has rejected, by tenant; all of them were counted as messages before."""
    rejected = [letter for letter in (*written.letters, *written.discarded) if is_guarded_reason(letter.reason)]
    if rejected:
        rejected_before = {rejection.message_index for rejection in batch.interpreted.rejections}
        rejected = [letter for letter in rejected if letter.message_index not in rejected_before]
    tenants = {letter.topic: batch.tenant_names[letter.tenant_id] for letter in rejected}
    return count_by_topic((), (letter.topic for letter in rejected), tenants)
