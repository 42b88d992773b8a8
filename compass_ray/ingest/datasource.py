"""The sources of a run as a Ray Data ``Datasource``: one read task per file or byte range."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from compass_ray.ingest.files import ReadUnit


class CorpusDatasource(Datasource):  # type: ignore[misc]
    """Reads units with a function ``unit -> tables``; the function must be cheap to pickle."""

    def __init__(self, units: list[ReadUnit], reader: Callable[[ReadUnit], Iterator[pa.Table]]) -> None:
        super().__init__()
        self._units = units
        self._reader = reader

    def get_name(self) -> str:
        return "Corpus"

    def estimate_inmemory_data_size(self) -> int | None:
        return sum(unit.file.weight for unit in self._units)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """One task per unit, whatever parallelism is asked for: a unit is as small as it gets."""
        return [
            ReadTask(
                partial(self._reader, unit),
                BlockMetadata(
                    num_rows=None, size_bytes=unit.file.weight, exec_stats=None, input_files=(unit.file.place,)
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for unit in self._units
        ]
