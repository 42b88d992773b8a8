#!/usr/bin/env bash
# pyarrow 26.0.1: the handler for rows of a wrong width (ParseOptions.invalid_row_handler) is not asked about a row that
# is no UTF-8, even where all columns are read as binary and UTF-8 is not checked, as for a file of unknown encoding.
# The error of its own decoding is written to stderr and dropped, and the whole read fails.
# Seen: the row is skipped if it is ASCII; ArrowInvalid "Expected 2 columns, got 3" if one byte is 0xFF.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pyarrow==26.0.1
"$folder/venv/bin/python" - <<'PY'
import io
import sys

import pyarrow as pa
import pyarrow.csv

sys.unraisablehook = lambda given: print("dropped by pyarrow 26.0.1:", given.exc_value)


def read(data):
    skipped = []
    options = pa.csv.ParseOptions(invalid_row_handler=lambda row: skipped.append(row.number) or "skip")
    converted = pa.csv.ConvertOptions(check_utf8=False, column_types={"a": pa.binary(), "b": pa.binary()})
    table = pa.csv.read_csv(
        io.BytesIO(data), pa.csv.ReadOptions(use_threads=False), options, converted
    )
    return table.num_rows, skipped


assert read(b"a,b\n1,2\n3,4,5\n6,\xff\n") == (2, [3])
try:
    found = read(b"a,b\n1,2\n3,\xff4,5\n6,7\n")
except pa.ArrowInvalid as error:
    print("pyarrow 26.0.1:", str(error).encode("ascii", "replace").decode())
    assert "Expected 2 columns, got 3" in str(error)
else:
    raise SystemExit(f"the handler is asked now: {found}")
PY
