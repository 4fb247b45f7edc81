"""Measurements as Parquet files.

Format: https://parquet.apache.org/docs/file-format/. Importing this module takes 10 MB more than `arrow`, which whoever asks for an Arrow
stream does not need.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import pyarrow as pa
from pyarrow import parquet

from sens_platform_api import metrics
from sens_platform_api.measurements.arrow import NEXT, Sink, Table, chained, is_text
from sens_platform_api.measurements.cursors import render_position

GROUP_BYTES: Final = 4 << 20
"""A group of rows of a file is written when it takes so much memory."""


async def as_parquet(table: Table) -> AsyncGenerator[bytes]:
    """Yield a Parquet file, group of rows by group of rows; where the limit ended the rows, the file's metadata have the cursor."""
    sink = Sink()
    async with aclosing(table.batches()) as batches:
        first = await anext(batches, None)
        writer = parquet.ParquetWriter(
            sink,
            table.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=[field.name for field in table.schema if is_text(field.type)],
            column_encoding={"time": "DELTA_BINARY_PACKED"}
            | {field.name: "BYTE_STREAM_SPLIT" for field in table.schema if pa.types.is_floating(field.type)},
        )
        group: list[pa.RecordBatch] = []
        async for batch in chained(first, batches):
            group.append(batch)
            if sum(each.nbytes for each in group) >= GROUP_BYTES:
                await _write_group(writer, group)
                group = []
                for chunk in sink.taken():
                    yield chunk
        if group:
            await _write_group(writer, group)
        if table.next is not None:
            writer.add_key_value_metadata({NEXT.decode(): render_position(table.next)})
        await asyncio.to_thread(writer.close)
    for chunk in sink.taken(last=True):
        yield chunk


async def _write_group(writer: parquet.ParquetWriter, group: Sequence[pa.RecordBatch]) -> None:
    """Encode and compress in a thread: it takes some 50 ms, and others want to be served."""
    table = pa.Table.from_batches(group)
    await asyncio.to_thread(writer.write_table, table, row_group_size=table.num_rows)
    metrics.MEASUREMENTS.inc(table.num_rows)
