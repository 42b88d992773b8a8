#!/usr/bin/env bash
# ray 2.60.0: ray.data.read_parquet of one file of 40 rows starts 32 actors, each a process of its own, whenever the
# dataset is executed, and kills them again: the new Parquet reader reads footers on a fixed number of FooterReader
# actors, whatever the number of files and of CPUs. Nothing of it is logged. On two cores the 40 rows take two to thirty
# seconds; with DataContext.use_datasource_v2 = False, the reader of before, some tenths of one.
# Seen: 32 FooterReader actors after one execution, 64 after two; none with the older reader; the same rows.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'ray[data]==2.60.0' pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import logging
import time

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import ray.data
from ray._private.state import actors

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
ray.data.DataContext.get_current().enable_progress_bars = False
pq.write_table(pa.table({"number": list(range(40))}), "one.parquet")


def readers():
    """Actors for footers that this session has started until now."""
    return sum(one["ActorClassName"] == "FooterReader" for one in actors().values())


def rows(new):
    ray.data.DataContext.get_current().use_datasource_v2 = new
    started = time.monotonic()
    found = ray.data.read_parquet("one.parquet").take_all()
    print(f"use_datasource_v2={new}: {len(found)} rows in {time.monotonic() - started:.1f} s, actors so far: {readers()}")
    return sorted(row["number"] for row in found)


for new, expected in ((False, 0), (True, 32), (True, 64), (False, 64)):
    assert rows(new) == list(range(40))
    assert readers() == expected, readers()
ray.shutdown()
PY
