"""Logs: one JSON object a line on standard error, with ``timestamp level service version event`` first."""

import logging
import sys

import structlog

from sens_common.settings import Level
from sens_common.version import product_version


def configure_logs(service: str, level: Level = "info") -> None:
    """Send structlog's lines, and those of libraries that use the standard library's logging, to standard error."""
    number = getattr(logging, level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _static_fields(service),
        structlog.processors.format_exc_info,
    ]
    renderer: list[structlog.typing.Processor] = [_ordered, structlog.processors.JSONRenderer()]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING) if level != "debug" else number)


def _static_fields(service: str) -> structlog.typing.Processor:
    def add(
        _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        event["service"] = service
        event["version"] = product_version()
        return event

    return add


def _ordered(
    _logger: structlog.typing.WrappedLogger, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    head = {name: event.pop(name) for name in ("timestamp", "level", "service", "version", "event") if name in event}
    return head | dict(sorted(event.items()))
