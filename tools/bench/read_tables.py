"""The figures of reads as tables."""

from tools.bench.figures import Results
from tools.bench.markdown import NAMES, table
from tools.stack.path import API
from tools.stack.programs import POSTGRES


def reads(results: Results) -> str:
    """Return what each kind of read takes, and what a stream does."""
    of = results.reads
    if of is None:
        return ""
    rows = [
        [
            one.name,
            *(f"{one.milliseconds[at]:,.1f} ms" for at in ("50", "95", "100")),
            f"{one.requests:,}",
            f"{one.kilobytes:,.1f} kB",
            f"{one.buffers:,.0f}",
            *(f"{one.cpu_microseconds[part] / 1e3:,.1f} ms" for part in (API, POSTGRES)),
        ]
        for one in of.reads
    ]
    head = ["Read", "p50", "p95", "max", "requests", "answer", "buffers", "CPU: API", f"CPU: {NAMES[POSTGRES]}"]
    streams = [
        [
            one.form,
            f"{one.rows:,}",
            f"{one.rows_per_second:,.0f}",
            f"{one.readings_per_second:,.0f}",
            f"{one.megabytes:.0f} MB",
            f"{one.bytes_per_row:.1f} B",
            *(f"{one.cpu_microseconds[part]:.2f} µs" for part in (API, POSTGRES)),
        ]
        for one in of.streams
    ]
    stream_head = [
        "Stream",
        "values",
        "values/s",
        "readings/s",
        "API's memory",
        "a value",
        "CPU: API",
        f"CPU: {NAMES[POSTGRES]}",
    ]
    title = f"{of.readings:,} readings in {of.partitions:,} partitions, a fleet of {of.devices:,} devices:"
    return f"{title}\n\n{table(head, rows)}\n\n{table(stream_head, streams)}"
