"""The page of all services' metrics."""

import inspect

from prometheus_client.metrics import MetricWrapperBase

from tools.reference.markdown import code, table
from tools.reference.services import SERVICES, module_of


def metrics_page() -> str:
    """Return the page of all services' metrics."""
    parts = [
        "# Metrics",
        (
            "Every service answers `/metrics` on its operations port (the API on its own port) in Prometheus' text format. Labels"
            " take their values from bounded sets: tenants that an operator made, words in the code, HTTP's own. Beside these, each"
            " process tells its memory, processor time and open files (`process_*`)."
        ),
    ]
    for service, package in {
        "all services": "sens_common",
        "both ingestion workers": "sens_common.ingestion",
        **SERVICES,
    }.items():
        module = module_of(package, "metrics")
        if module is None:
            continue
        rows = []
        for member in vars(module).values():
            if isinstance(member, MetricWrapperBase):
                [description] = member.describe()
                name = f"{description.name}_total" if description.type == "counter" else description.name
                labels = ", ".join(map(code, member._labelnames))  # noqa: SLF001 - the library has no public name for them
                rows.append([code(name), description.type, labels, description.documentation])
        parts += [
            f"## {service}",
            (inspect.getdoc(module) or "").replace("``", "`"),
            table(["Name", "Type", "Labels", "Meaning"], rows),
        ]
    return "\n\n".join(parts)
