"""Codecs in JavaScript: how frames are decoded with them, and what is looked at before one is saved."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from types import MappingProxyType
from typing import Final, NamedTuple

from sens_common.errors import RejectedMessageError
from sens_common.formats import KINDS, Value
from sens_payloads.codecs.calls import Call, Decoded, Outcome
from sens_payloads.codecs.sandbox.protocol import FORMS
from sens_payloads.codecs.sandbox.sandboxes import Sandbox
from sens_payloads.frames import Fields, Frame
from sens_payloads.profiles import Codec, CodecVersion

_NO_VARIABLES: Final[Mapping[str, str]] = MappingProxyType({})
MAX_EXAMPLES: Final = 100


class JavascriptCodecs:
    """The tenants' codecs, as `frames.FrameDecoder`."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Take what runs them; whoever made it closes it."""
        self._sandbox = sandbox

    async def decode(
        self, tenant_id: int, codec: Codec, frames: Sequence[Frame]
    ) -> list[Fields | RejectedMessageError]:
        """See `frames.FrameDecoder.decode`; warnings are left out.

        Raises:
            UnavailableError: The sandbox can't run codecs.
        """
        assert isinstance(codec, CodecVersion)  # noqa: S101 - `frame_decoding` keeps the others to itself
        calls = [Call(frame.payload, frame.f_port, frame.measured_at) for frame in frames]
        return [
            outcome.fields if isinstance(outcome, Decoded) else outcome
            for outcome in await self._sandbox.decode(tenant_id, codec, calls)
        ]


class Example(NamedTuple):
    """A frame, and what the codec has to make of it: `fields` or `error`, not both.

    Attributes:
        frame: Bytes of a device.
        f_port: LoRaWAN port, 0 where there is none.
        fields: Values by their joined names.
        error: Words that the error has in it; any error if they are empty.
        received_at: Microseconds since the epoch.
        variables: Of the device.
    """

    frame: bytes
    f_port: int = 0
    fields: Mapping[str, Value | int] | None = None
    error: str | None = None
    received_at: int = 1_767_225_600_000_000
    variables: Mapping[str, str] = _NO_VARIABLES


class Problem(NamedTuple):
    """Why a codec can't be saved.

    Attributes:
        example: Position of the example, from 0; None where it is the codec.
        text: What is wrong, and what was expected.
    """

    example: int | None
    text: str


def unsaved(source: str) -> CodecVersion:
    """Return the version that a source would be, number 0."""
    return CodecVersion("unsaved", 0, sha256(source.encode("utf-8", "replace")).digest(), source)


async def check(sandbox: Sandbox, tenant: int | str, source: str, examples: Sequence[Example]) -> list[Problem]:
    """Look whether a codec can be saved: it loads, has a known form, does with each example what is expected, and the same each time.

    Args:
        sandbox: That runs it.
        tenant: Whose codec it is.
        source: JavaScript.
        examples: At most `MAX_EXAMPLES`.

    Returns:
        What is wrong; nothing if it can be saved.

    Raises:
        UnavailableError: The sandbox can't run codecs.
    """
    codec = unsaved(source)
    if not _is_text(source):
        return [Problem(None, "the source has half of a surrogate pair, which is no character")]
    if len(examples) > MAX_EXAMPLES:
        return [Problem(None, f"there are {len(examples)} examples; at most {MAX_EXAMPLES} are kept")]
    try:
        form = await sandbox.form(tenant, codec)
    except RejectedMessageError as error:
        return [Problem(None, error.detail)]
    if form < 0:
        return [Problem(None, f"it has none of the functions {', '.join(FORMS)}")]
    calls = [Call(example.frame, example.f_port, example.received_at, example.variables) for example in examples]
    count = len(calls)
    # Whatever a codec kept would show when its messages come again, in another order.
    outcomes = await sandbox.decode(tenant, codec, [*calls, *reversed(calls), *calls])
    problems = []
    for position, example in enumerate(examples):
        first, again, last = outcomes[position], outcomes[2 * count - 1 - position], outcomes[2 * count + position]
        if (wrong := _compare(example, first)) is not None:
            problems.append(Problem(position, wrong))
        other = next((outcome for outcome in (again, last) if not _same(first, outcome)), None)
        if other is not None:
            problems.append(
                Problem(
                    position,
                    f"first it gave {_words(first)}, and after other messages {_words(other)}: a codec may keep nothing from one message to the next",
                )
            )
    return problems


def _compare(example: Example, outcome: Outcome) -> str | None:
    if example.fields is None:
        expected = "an error" if not example.error else f"an error with the words {example.error!r}"
        if isinstance(outcome, RejectedMessageError) and (example.error or "") in outcome.detail:
            return None
    else:
        expected = _fields_words(example.fields)
        if isinstance(outcome, Decoded) and _are_equal(example.fields, outcome.fields):
            return None
    return f"it gave {_words(outcome)}; expected was {expected}"


def _are_equal(expected: Mapping[str, Value | int], fields: Mapping[str, Value | int]) -> bool:
    return expected.keys() == fields.keys() and all(
        KINDS[type(value)] == KINDS[type(fields[name])] and value == fields[name] for name, value in expected.items()
    )


def _same(outcome: Outcome, other: Outcome) -> bool:
    if isinstance(outcome, Decoded) and isinstance(other, Decoded):
        return outcome.warnings == other.warnings and _are_equal(outcome.fields, other.fields)
    return _words(outcome) == _words(other)


def _words(outcome: Outcome) -> str:
    if isinstance(outcome, Decoded):
        return _fields_words(outcome.fields)
    return f"the error {outcome.detail!r}"


def _fields_words(fields: Mapping[str, Value | int]) -> str:
    words = ", ".join(f"{name}: {value!r:.100}" for name, value in fields.items())
    return words if len(words) <= 1000 else f"{words[:1000]}…"  # noqa: PLR2004 - for people


def _is_text(source: str) -> bool:
    try:
        source.encode()
    except UnicodeEncodeError:
        return False
    return True
