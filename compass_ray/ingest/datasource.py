"""The sources of a run as a Ray Data ``Datasource``: a task for a large file or byte range, or for some small ones.

A task costs some hundredths of a second and its block as much again in every step of the shuffle, so a file of a few
kilobytes does not get one of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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

    def estimate_inmemory_data_size(self) -> int:
        return sum(unit.weight for unit in self._units)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Make about as many tasks as are asked for.

        There are more if units are large: a unit is as small as it gets.
        """
        return [
            ReadTask(
                partial(_read_all, self._reader, units),
                BlockMetadata(
                    num_rows=None,
                    size_bytes=sum(unit.weight for unit in units),
                    exec_stats=None,
                    input_files=tuple(unit.file.place for unit in units),
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for units in bundled(self._units, self.estimate_inmemory_data_size() / parallelism)
        ]


def bundled(units: Sequence[ReadUnit], size: float) -> Iterator[list[ReadUnit]]:
    """Bundle units that follow one another, at most ``size`` bytes a list.

    A unit that is larger is a list by itself.
    """
    bundle: list[ReadUnit] = []
    total = 0
    for unit in units:
        if bundle and total + unit.weight > size:
            yield bundle
            bundle, total = [], 0
        bundle.append(unit)
        total += unit.weight
    if bundle:
        yield bundle


def _read_all(reader: Callable[[ReadUnit], Iterator[pa.Table]], units: Sequence[ReadUnit]) -> Iterator[pa.Table]:
    for unit in units:
        yield from reader(unit)
