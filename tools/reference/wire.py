"""The pages of what goes over the wire: the payload's limits, and the dead letters' reasons."""

import ast
import inspect
from types import ModuleType

from sens_common import dead_letters, device_times, fields, formats, names
from sens_mqtt_ingestion_worker.settings import MqttSettings
from sens_telemetry_worker import tenants
from tools.reference.markdown import code, table
from tools.reference.reasons import HELP


def attribute_docstrings(module: ModuleType, class_name: str | None = None) -> dict[str, str]:
    """Return the string below each assignment of a module or of one of its classes, by name."""
    tree: ast.Module | ast.ClassDef = ast.parse(inspect.getsource(module))
    if class_name is not None:
        tree = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    found = {}
    for node, following in zip(tree.body, tree.body[1:], strict=False):
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AnnAssign)
            else None
        )
        if (
            isinstance(target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            found[target.id] = inspect.cleandoc(str(following.value.value))
    return found


def dead_letters_page() -> str:
    """Return the page of dead-letter reasons."""
    meanings = attribute_docstrings(dead_letters, "Reason")
    rows = [
        [code(str(reason)), meanings[reason.name], HELP[reason].example, HELP[reason].remedy]
        for reason in dead_letters.Reason
    ]
    return "\n\n".join(
        [
            "# Dead-letter reasons",
            (
                "A message that can't be decoded or stored is kept with its raw bytes, a reason from this list, and a sentence that"
                " says what exactly was wrong. [How to look at dead letters and replay them](../guides/dead-letters.md)."
            ),
            table(["Reason", "Meaning", "For example", "What to do"], rows),
        ]
    )


def payload_page() -> str:
    """Return the page of the payload's limits."""
    rows = [
        ["Payload", f"{fields.MAX_PAYLOAD_BYTES:,} bytes", "`too_large`"],
        ["Objects inside each other, the outermost included", str(fields.MAX_NESTING), "`too_large`"],
        ["Metrics in one object", f"{fields.MAX_METRICS:,}", "`too_large`"],
        ["Readings in a backlog", f"{fields.MAX_READINGS:,}", "`too_large`"],
        ["Values in one message", f"{fields.MAX_VALUES:,}", "`too_large`"],
        [
            "A metric's name, joined",
            f"1 to {fields.MAX_NAME_CHARACTERS} characters, none a control character",
            "`invalid_metric`",
        ],
        [
            "A text value",
            f"{formats.MAX_TEXT_CHARACTERS:,} characters, none of them NUL",
            "`too_large`, `unsupported_value`",
        ],
        [
            "A device's clock",
            f"from 2000 on, at most {device_times.MAX_AHEAD // 3_600_000_000} hours ahead of the receipt",
            "`implausible_time`",
        ],
        [
            "How far back a reading may lie",
            f"{tenants.DEFAULT_LATE_MICROSECONDS // 86_400_000_000} days, or the tenant's own limit",
            "`too_old`",
        ],
        [
            "Elements of an array",
            f"{fields.MAX_ELEMENTS}, none of them an array or an object",
            "`too_large`, `unsupported_value`",
        ],
        ["A tenant's name", names.TENANT_RULE, "`invalid_topic`"],
        ["A device's name, where it is no EUI", names.DEVICE_RULE, "`invalid_topic`"],
    ]
    packet = MqttSettings.model_fields["max_packet_bytes"].default
    return "\n\n".join(
        [
            "# Payload limits",
            (
                "[The payload's format](../guides/publishing.md) has these limits. What is over one goes to the dead letters with"
                " the reason shown."
            ),
            table(["What", "Limit", "Reason"], rows),
            (
                f"An MQTT packet of more than {packet:,} bytes (`SENS_MQTT__MAX_PACKET_BYTES`) does not reach the platform: the"
                " worker tells the broker so when it connects, and the broker drops larger ones (MQTT 5.0, section 3.1.2.11.4)."
            ),
        ]
    )
