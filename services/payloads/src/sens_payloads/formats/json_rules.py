"""Rules at work: a document becomes uplinks. What a rule may say is in `json_settings`."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from typing import Final, NamedTuple

from sens_common.dead_letters import Reason
from sens_common.device_times import measured_at as measured_at_of
from sens_common.errors import RejectedMessageError
from sens_common.fields import MAX_READINGS, MAX_VALUES, are_usual_numbers, flatten, type_words
from sens_common.formats import Value
from sens_common.names import shown
from sens_payloads.formats.device_names import canonical_device
from sens_payloads.formats.json_paths import ABSENT, Keys, find, take
from sens_payloads.formats.json_settings import Rule
from sens_payloads.formats.times import instant
from sens_payloads.uplinks import Received, Unwrapped, Uplink, WithoutMeasurements

_MAX_REMEMBERED_TOPICS: Final = 4096
_EVENT: Final = WithoutMeasurements("event")

type _Fields = dict[str, Value | int]


class Match(NamedTuple):
    """A rule that a topic fits.

    Attributes:
        rule: The rule.
        variables: What the topic says.
        device: The device's name, None where the message says it.
        is_flat: The rule reads objects of values as they are, but for a time.
    """

    rule: "RuleReader"
    variables: dict[str, str]
    device: str | None
    is_flat: bool


class Reader:
    """The rules of a source."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [RuleReader(rule) for rule in rules]
        self._topics = ", ".join(shown(rule.topic) for rule in rules)
        self.matches: Callable[[str], tuple[Match, ...]] = lru_cache(maxsize=_MAX_REMEMBERED_TOPICS)(self._matches)

    def unwrap(self, received: Received, parse: Callable[[bytes], object]) -> Unwrapped:
        """Return a message's uplinks; see `sens_payloads.uplinks.NetworkFormat.unwrap`.

        Args:
            received: The message.
            parse: Gives its body as values.
        """
        matches = self.matches(received.topic)
        if not matches:
            raise RejectedMessageError(
                Reason.INVALID_TOPIC,
                f"no rule of the source reads the topic {shown(received.topic)}; the rules' topics: {self._topics}",
            )
        first = matches[0].rule
        if first.without_measurements is not None and not first.when:
            return first.without_measurements
        if not received.body and received.topic:  # a retained message is removed (MQTT 5.0, section 3.3.1.3)
            return _EVENT
        document = parse(received.body)
        for match in matches:
            if not match.rule.when or match.rule.fits(document):
                return match.rule.unwrap(match, document, received)
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD,
            f"no rule of the source fits the message: {' or '.join(match.rule.condition for match in matches)}",
        )

    def _matches(self, topic: str) -> tuple[Match, ...]:
        found: list[Match] = []
        for rule in self._rules:
            variables = rule.variables(topic)
            if variables is not None:
                device = rule.device_of_topic(variables)
                is_flat = not found and device is not None and rule.reads_flat_objects
                found.append(Match(rule, variables, device, is_flat))
                if not rule.when:
                    break
        return tuple(found)


class RuleReader:
    """One rule.

    Attributes:
        when: Members and the texts of which they must have one.
        without_measurements: What its messages are that carry none.
    """

    def __init__(self, rule: Rule) -> None:
        self._rule = rule
        self._topic = rule.topic_template
        self._device = rule.device_name
        self._metric = rule.metric_name
        self._time, self._values, self._readings = map(_keys, (rule.time, rule.values, rule.readings))
        known = (self._topic.variables if self._topic is not None else frozenset()) | (
            {"key"} if rule.device_keys else frozenset()
        )
        self._device_is_in_topic = self._topic is not None and self._topic.variables.issuperset(self._device.references)
        references = (*self._device.references, *self._metric.references)
        self._used = tuple(_keys(reference) for reference in references if reference not in known)
        self._skip = tuple(map(_keys, rule.skip))
        self._no_value = frozenset(word.lower() for word in rule.no_value)
        self.when = tuple((_keys(path), frozenset(words)) for path, words in rule.when.items())
        self.without_measurements = (
            WithoutMeasurements(rule.without_measurements) if rule.without_measurements else None
        )

    @property
    def reads_flat_objects(self) -> bool:
        """Whether an object's members are the values, but for a time, and nothing else is asked for."""
        rule = self._rule
        asks_for_more = rule.when or rule.readings or rule.values or rule.device_keys or self._skip or self._used
        return not asks_for_more and not self._metric.parts and len(self._time) <= 1

    def flat_uplink(self, device: str, members: dict[str, object], received_at: int) -> Uplink | None:
        """Return an object of numbers and booleans as an uplink, None where it is anything else; then nothing of it is to be used.

        Args:
            device: Its name.
            members: The object.
            received_at: Microseconds since the epoch.
        """
        measured_at = None
        if self._time:
            time = members.pop(self._rule.time, None)
            if type(time) is int and self._rule.time_unit == "auto":
                try:
                    measured_at = measured_at_of(time, received_at, self._rule.time)
                except RejectedMessageError:
                    return None
            elif time is not None:
                return None
        return Uplink(device, measured_at, members) if are_usual_numbers(members) else None  # type: ignore[arg-type] # numbers

    @property
    def condition(self) -> str:
        """What messages of this rule have, for people."""
        return " and ".join(f"{'.'.join(keys)} is {' or '.join(sorted(words))}" for keys, words in self.when)

    def variables(self, topic: str) -> dict[str, str] | None:
        """Return what a topic says, None where this rule does not read it."""
        if self._topic is None:
            return {}
        match = self._topic.pattern.fullmatch(topic)
        return None if match is None else match.groupdict()

    def device_of_topic(self, variables: dict[str, str]) -> str | None:
        """Return the device's name where the topic or the rule alone says it, and it is one."""
        if self.without_measurements is not None or not (self._device_is_in_topic or not self._device.references):
            return None
        try:
            return canonical_device(self._device.filled(variables.get), self._rule.other_characters)
        except RejectedMessageError:
            return None

    def fits(self, document: object) -> bool:
        """Tell whether the document has what the rule asks for."""
        return all(_name_text(find(document, keys)) in words for keys, words in self.when)

    def unwrap(self, match: Match, document: object, received: Received) -> Unwrapped:
        """Return the document's uplinks.

        Raises:
            RejectedMessageError: They can't be read.
        """
        if self.without_measurements is not None:
            return self.without_measurements
        if type(document) is dict and not self._readings and not self._rule.device_keys:
            single = self._uplink(match, document, None, document, received)
            return [single] if single is not None else _EVENT
        uplinks: list[Uplink] = []
        values = 0
        for where, key, reading in self._all_readings(document):
            try:
                uplink = self._uplink(match, document, key, reading, received)
            except RejectedMessageError as error:
                if not where:
                    raise
                raise RejectedMessageError(error.reason, f"{where}: {error.detail}") from None
            if uplink is not None:
                uplinks.append(uplink)
                values += len(uplink.fields or ())
                if len(uplinks) > MAX_READINGS or values > MAX_VALUES:
                    raise RejectedMessageError(
                        Reason.TOO_LARGE,
                        f"the message has more than {MAX_READINGS} readings or {MAX_VALUES} values, which is what one may hold",
                    )
        if len(uplinks) > 1:
            _check_times(uplinks)
        return uplinks or _EVENT

    def _all_readings(self, document: object) -> Iterator[tuple[str, str | None, object]]:
        """Yield where each reading is, for people, its key, and itself."""
        found = find(document, self._readings)
        path = self._rule.readings
        if found is ABSENT:
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD, f"the message has no member {path}, where its readings are"
            )
        if not self._rule.device_keys:
            yield from _each(path, None, found)
            return
        if not isinstance(found, dict):
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD,
                f"{path or 'the message'} is {type_words(found)}, not an object with a member for each device",
            )
        for key, reading in found.items():
            yield from _each(shown(key), key, reading)

    def _uplink(
        self, match: Match, document: object, key: str | None, reading: object, received: Received
    ) -> Uplink | None:
        """Return a reading as an uplink, None where it has no values."""
        device, metric = match.device, ""
        if device is None or self._metric.parts:
            value_of = partial(_value_of, match.variables, document, key, reading)
            device = device or self._device_name(value_of)
            if self._metric.parts:
                metric = _filled(self._metric.filled, value_of, "the metric's name").replace("/", ".")
        measured_at = self._measured_at(document, reading, received) if self._time else None
        for keys in self._used:
            take(reading, keys)
        fields = self._fields(metric, reading)
        return Uplink(device, measured_at, fields) if fields else None

    def _device_name(self, value_of: Callable[[str], str | None]) -> str:
        name = _filled(self._device.filled, value_of, "the device's name")
        reason = Reason.INVALID_TOPIC if self._device_is_in_topic else Reason.MALFORMED_PAYLOAD
        return canonical_device(name, self._rule.other_characters, reason)

    def _measured_at(self, document: object, reading: object, received: Received) -> int | None:
        found = take(reading, self._time)
        if found is ABSENT and reading is not document:
            found = find(document, self._time)
        if found is ABSENT or found is None:
            return None
        rule = self._rule
        try:
            return instant(found, received.received_at, unit=rule.time_unit, offset=rule.time_offset, member=rule.time)
        except RejectedMessageError:
            if rule.unusable_time == "receipt":
                return None
            raise

    def _fields(self, metric: str, reading: object) -> _Fields:
        values = find(reading, self._values) if self._values else reading
        if values is ABSENT:
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD, f"there is no member {self._rule.values}, where the values are"
            )
        for keys in self._skip:
            take(values, keys)
        if isinstance(values, dict):
            fields = flatten(values, prefix=f"{metric}." if metric else "")
        elif values is None:
            return {}
        else:
            name = metric or (self._values[-1] if self._values else "")
            if not name:
                raise RejectedMessageError(
                    Reason.MALFORMED_PAYLOAD,
                    f"the message is {type_words(values)} without a name: let the rule's topic have {{metric}}, or set metric",
                )
            fields = flatten({name: values})
        return self._with_words(fields) if str in set(map(type, fields.values())) else fields

    def _with_words(self, fields: _Fields) -> _Fields:
        """Return the fields with those texts as booleans that mean one, without those that mean nothing."""
        states, texts = self._rule.states, self._rule.texts
        found: _Fields = {}
        for name, value in fields.items():
            if type(value) is not str:
                found[name] = value
            elif value in states:
                found[name] = states[value]
            elif texts and value.lower() not in self._no_value:
                found[name] = value
        return found


def _value_of(
    variables: dict[str, str], document: object, key: str | None, reading: object, reference: str
) -> str | None:
    """Return what stands in braces: a variable of the topic, a key, or a member of the reading or of the document."""
    if reference in variables:
        return variables[reference]
    if reference == "key" and key is not None:
        return key
    keys = _keys(reference)
    found = find(reading, keys)
    return _name_text(find(document, keys) if found is ABSENT else found)


def _keys(path: str) -> Keys:
    return tuple(path.split(".")) if path else ()


def _name_text(value: object) -> str | None:
    """Return a member as part of a name, None where it can't be one."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _filled(
    fill: Callable[[Callable[[str], str | None]], str], value_of: Callable[[str], str | None], what: str
) -> str:
    try:
        return fill(value_of)
    except KeyError as error:
        raise RejectedMessageError(
            Reason.MALFORMED_PAYLOAD, f"there is no text or integer {error.args[0]}, which is in {what}"
        ) from None


def _each(where: str, key: str | None, found: object) -> Iterator[tuple[str, str | None, object]]:
    if not isinstance(found, list) or not any(isinstance(element, dict) for element in found):
        yield where, key, found
        return
    if len(found) > MAX_READINGS:
        raise RejectedMessageError(
            Reason.TOO_LARGE, f"there are {len(found)} readings; one message may hold {MAX_READINGS}"
        )
    for position, reading in enumerate(found, 1):
        inside = f"reading {position} of {where}" if where else f"reading {position}"
        if not isinstance(reading, dict):
            raise RejectedMessageError(
                Reason.MALFORMED_PAYLOAD, f"{inside}: it is {type_words(reading)}, not an object as the others"
            )
        yield inside, key, reading


def _check_times(uplinks: list[Uplink]) -> None:
    """Look that no device has two values of a metric for the time of the receipt.

    Raises:
        RejectedMessageError: One has.
    """
    seen: set[tuple[str, str]] = set()
    for uplink in uplinks:
        if uplink.measured_at is None:
            for name in uplink.fields or ():
                if (uplink.device, name) in seen:
                    raise RejectedMessageError(
                        Reason.INVALID_TIME,
                        f"{shown(uplink.device)} has several values of {shown(name)} and no time for them: a reading of several needs its time",
                    )
                seen.add((uplink.device, name))
