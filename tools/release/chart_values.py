"""Reads one value of the chart's values, which people write as YAML, and where it is in the text."""

from typing import NamedTuple

from sens_cli.release.versions import ReleaseError


class Scalar(NamedTuple):
    """A value that is neither a list nor a mapping.

    Attributes:
        value: As text, without quotes.
        start: Index of its first character, quotes included.
        end: Index behind its last one.
    """

    value: str
    start: int
    end: int


def find_scalar(text: str, *keys: str) -> Scalar | None:
    """Return the value that the keys lead to; None when there is none, or more than one, or the text is not YAML.

    Raises:
        ReleaseError: The library for YAML is missing.
    """
    try:
        import yaml  # noqa: PLC0415 - the other programs do without it
    except ModuleNotFoundError:
        raise ReleaseError(
            "PyYAML is missing: install it, or name a Python that has it in SENS_PYTHON (scripts/lib/requirements.txt has its version)."
        ) from None
    try:
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    for key in keys:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = [value for name, value in pairs if name.value == key]
        if len(found) != 1:
            return None
        node = found[0]
    # A key without a value leads to nothing, in no characters.
    if not isinstance(node, yaml.ScalarNode) or node.start_mark.index == node.end_mark.index:
        return None
    return Scalar(node.value, node.start_mark.index, node.end_mark.index)
