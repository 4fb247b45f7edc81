"""What the guard is told of a batch: how many messages of each tenant are rejected, first by the worker and then by the database."""

from sens_telemetry_worker.accounting import WrittenPart
from sens_telemetry_worker.batch import Batch
from sens_telemetry_worker.guard import JudgedMessages, counts, judge


def judged_by_the_worker(batch: Batch) -> dict[str, JudgedMessages]:
    """Return the messages of a batch by tenant, and those that can't be decoded; those left out whose reason is not the worker's."""
    routed = batch.routed
    not_counted = {each.message_index for each in routed.rejections if not counts(each.reason)}
    topics = [message.topic for message in routed.messages]
    counted = [
        topics[index] for index, device in enumerate(routed.devices) if device is not None and index not in not_counted
    ]
    rejected = [topics[each.message_index] for each in routed.rejections if each.message_index not in not_counted]
    tenants = {topic: device.tenant.name for topic, device in zip(topics, routed.devices, strict=True) if device}
    return judge(counted, rejected, tenants)


def judged_by_the_database(batch: Batch, written: WrittenPart) -> dict[str, JudgedMessages]:
    """Return the messages of a part that only the database has rejected, by tenant; all of them were judged before."""
    rejected = [letter for letter in (*written.letters, *written.discarded) if counts(letter.reason)]
    if rejected:
        judged_before = {rejection.message_index for rejection in batch.routed.rejections}
        rejected = [letter for letter in rejected if letter.message_index not in judged_before]
    tenants = {letter.topic: batch.tenant_names[letter.tenant_id] for letter in rejected}
    return judge((), (letter.topic for letter in rejected), tenants)
