"""Parquet. Until a run is complete its rows lie in an Arrow stream, which can be appended to."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qm9flow.bulk.columns import Column, Value
from qm9flow.bulk.writers.writer import Writer, unicode_names, without_surrogates
from qm9flow.errors import DependencyError

GROUP_BYTES = 32 * 1024**2
"""Row groups end where they reach this, in memory."""

WHOLE = ".whole"
"""Ending of the Parquet file while it is made from the stream."""


class ParquetWriter(Writer):
    """Typed columns; a number's unit is in its field's metadata, the model in the file's."""

    def __init__(self, columns: Sequence[Column], facts: dict[str, Any]) -> None:
        """Know the columns.

        Args:
            columns: Of all rows.
            facts: For the file's metadata, under `qm9flow`.

        Raises:
            DependencyError: pyarrow is not installed.
        """
        super().__init__(columns)
        try:
            import pyarrow
        except ImportError as error:
            raise DependencyError(
                "Parquet needs pyarrow, which is not installed: pip install pyarrow, or write "
                "CSV or JSON lines"
            ) from error
        kinds = {
            "text": pyarrow.string(),
            "number": pyarrow.float64(),
            "count": pyarrow.int32(),
            "truth": pyarrow.bool_(),
        }
        self._arrow = pyarrow
        fields = [
            pyarrow.field(
                name,
                kinds[column.kind],
                metadata={"unit": column.unit} if column.unit else None,
            )
            for name, column in zip(unicode_names(columns), columns, strict=True)
        ]
        self._schema = pyarrow.schema(fields, metadata={"qm9flow": json.dumps(facts)})

    def head(self) -> bytes:
        """The schema of the stream."""
        return bytes(self._schema.serialize())

    def chunk(self, rows: Sequence[Sequence[Value]]) -> bytes:
        """A batch of the stream."""
        columns = [
            self._arrow.array([_plain(row[place]) for row in rows], type=field.type)
            for place, field in enumerate(self._schema)
        ]
        return bytes(self._arrow.record_batch(columns, schema=self._schema).serialize())

    def finish(self, partial: Path, output: Path) -> None:
        """Turn the stream into a Parquet file, some row groups at a time."""
        from pyarrow import parquet

        whole = output.with_name(output.name + WHOLE)
        with (
            partial.open("rb") as file,
            self._arrow.ipc.open_stream(file) as stream,
            parquet.ParquetWriter(whole, self._schema) as made,
        ):
            held: list[Any] = []
            size = 0
            for batch in stream:
                held.append(batch)
                size += batch.nbytes
                if size >= GROUP_BYTES:
                    made.write_table(self._arrow.Table.from_batches(held, self._schema))
                    held.clear()
                    size = 0
            if held:
                made.write_table(self._arrow.Table.from_batches(held, self._schema))
        with whole.open("r+b") as whole_file:
            os.fsync(whole_file.fileno())  # a power cut must not take it after its rows
        whole.replace(output)
        partial.unlink()


def _plain(value: Value) -> Value:
    return without_surrogates(value) if isinstance(value, str) else value
