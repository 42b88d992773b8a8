"""How fast are files read? MB/s of one core for JSON lines, TSV and Parquet, and peak memory by file size.

python benchmarks/ingest.py --data $COMPASS_DATA

Each format is read four ways: by a bare loop of the library that parses it, by our reader, by our reader with documents
made of the rows, and by the bare loop with the three hashes that make ids, which is the least that documents with
these ids can cost. Rows are parallel sentences of 33 languages, one or eight a row. Times are CPU seconds of one
process, the best of three; Ray Data's own reader is timed by the clock on one CPU, its workers already started.
"""

from __future__ import annotations

import argparse
import gzip
import json
import multiprocessing
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from compass_ray import storage
from compass_ray.ingest.config import SourceConfig
from compass_ray.ingest.files import InputFile, ReadUnit
from compass_ray.ingest.readers import read
from compass_ray.ingest.stage import read_unit

MB = 1_000_000
FORMATS = ("jsonl", "tsv", "parquet")
SOURCE = SourceConfig(role="pool", path="x", columns={"text": "text", "lang": "lang"})


def rows(data: Path, sentences: int) -> Iterator[dict[str, Any]]:
    """Rows without end, all languages in turn; numbered, so that none repeats."""
    texts = {}
    for path in sorted((data / "oldi_seed").glob("*.jsonl.gz")):
        with gzip.open(path) as stream:
            texts[path.name.split(".")[0]] = [orjson.loads(line)["text"] for line in stream]
    for number in count():
        for lang, said in texts.items():
            start = number * sentences % (len(said) - sentences)
            yield {"id": number, "lang": lang, "text": f"{number} {' '.join(said[start : start + sentences])}"}


def write(path: Path, source: Iterator[dict[str, Any]], size: int) -> InputFile:
    """A file of about ``size`` bytes of text."""
    kind = path.suffix.removeprefix(".")
    schema = pa.schema([("id", pa.int64()), ("lang", pa.string()), ("text", pa.string())])
    written = 0
    with path.open("wb") as stream:
        parquet = pq.ParquetWriter(stream, schema, compression="zstd") if kind == "parquet" else None
        if kind == "tsv":
            stream.write(b"id\tlang\ttext\n")
        while written < size:
            part = [next(source) for _ in range(10_000)]
            if parquet is not None:
                parquet.write_table(pa.Table.from_pylist(part, schema))
            for row in part:
                quoted = '"' + row["text"].replace('"', '""') + '"'
                line = json.dumps(row, ensure_ascii=False) if kind != "tsv" else f"{row['id']}\t{row['lang']}\t{quoted}"
                written += len(line.encode()) + 1
                if parquet is None:
                    stream.write(line.encode() + b"\n")
        if parquet is not None:
            parquet.close()
    stat = storage.stat(str(path))
    return InputFile(str(path), path.name, stat.size, stat.version, kind, "")


def bare(file: InputFile) -> Iterator[list[str] | pa.Array]:
    """Texts as the parsing library gives them, in batches."""
    if file.format == "jsonl":
        with Path(file.url).open("rb") as stream:
            yield [row["text"] for row in map(orjson.loads, stream)]
    elif file.format == "tsv":
        reader = pa_csv.open_csv(
            file.url,
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=4 << 20),
            parse_options=pa_csv.ParseOptions(delimiter="\t", newlines_in_values=True),
        )
        yield from (batch["text"] for batch in reader)
    else:
        batches = pq.ParquetFile(file.url).iter_batches(1 << 14, columns=["lang", "text"], use_threads=False)
        yield from (batch["text"] for batch in batches)


def only_parsed(file: InputFile) -> int:
    return sum(len(batch) for batch in bare(file))


def only_hashed(file: InputFile) -> int:
    total = 0
    for batch in bare(file):
        texts = batch if isinstance(batch, list) else batch.to_pylist()
        for text in texts:
            key = text.encode()
            blake2b(key, digest_size=16).digest()
            content = blake2b(b"text\0" + key, digest_size=16).digest()
            blake2b(b"pool\0\0en\0" + content.hex().encode(), digest_size=16).digest()
        total += len(texts)
    return total


def only_read(file: InputFile) -> int:
    return sum(len(batch.rows) for batch in read(ReadUnit("s", file), SOURCE.wanted_columns))


def ingested(file: InputFile) -> int:
    tables = read_unit(ReadUnit("s", file), {"s": SOURCE}, "prompt", 1, frozenset({0}))
    return sum(table.num_rows for table in tables)


WAYS: dict[str, Callable[[InputFile], int]] = {
    "bare": only_parsed,
    "read": only_read,
    "bare_hashed": only_hashed,
    "documents": ingested,
}


def speed(file: InputFile, size: int, way: str) -> tuple[float, int]:
    """MB of text a CPU second, and the rows."""
    seconds, found = in_new_process(_best_time, file, way)
    return size / MB / seconds, found


def _best_time(file: InputFile, way: str) -> tuple[float, int]:
    best, found = float("inf"), 0
    for _ in range(3):
        started = time.process_time()
        found = WAYS[way](file)
        best = min(best, time.process_time() - started)
    return best, found


def ray_speed(file: InputFile, size: int) -> float:
    """MB of text a second by Ray Data's own reader on one CPU."""
    import ray.data

    readers = {
        "jsonl": lambda: ray.data.read_json(file.url, lines=True),
        "tsv": lambda: ray.data.read_csv(
            file.url, parse_options=pa_csv.ParseOptions(delimiter="\t", newlines_in_values=True)
        ),
        "parquet": lambda: ray.data.read_parquet(file.url, columns=["lang", "text"]),
    }
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        readers[file.format]().materialize()
        best = min(best, time.perf_counter() - started)
    return size / MB / best


def _peak(file: InputFile) -> int:
    ingested(file)
    status = Path("/proc/self/status").read_text()  # getrusage would give the peak of the parent, too
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def in_new_process(work: Callable[..., Any], *given: Any) -> Any:
    """What a function gives in a process whose memory nothing else has used."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("COMPASS_DATA"), help="holds oldi_seed/")
    parser.add_argument("--megabytes", type=int, default=64, help="0 leaves out speed")
    parser.add_argument("--memory", type=int, nargs="*", default=[64, 512], help="sizes in MB to take peak memory at")
    parser.add_argument("--ray", action="store_true", help="time Ray Data's own readers too")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ingest.json")
    given = parser.parse_args()
    body: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {}
    body |= {"machine": platform.machine(), "cpus": os.cpu_count()}
    if given.ray:
        import ray

        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        body["speed"] = [] if given.megabytes else body.get("speed", [])
        body["memory"] = [] if given.memory else body.get("memory", [])
        for sentences in (1, 8) if given.megabytes else ():
            for kind in FORMATS:
                size = given.megabytes * MB
                file = write(Path(folder) / f"{sentences}.{kind}", rows(given.data, sentences), size)
                measured = {name: speed(file, size, name) for name in WAYS}
                if len({found for _, found in measured.values()}) != 1:
                    raise RuntimeError(f"not all ways found the same rows: {measured}")
                line = {"format": kind, "sentences": sentences, "rows": measured["bare"][1]}
                line |= {f"{name}_mb_per_s": round(value) for name, (value, _) in measured.items()}
                line["read_of_bare"] = round(measured["read"][0] / measured["bare"][0], 2)
                line["documents_of_bare_hashed"] = round(measured["documents"][0] / measured["bare_hashed"][0], 2)
                if given.ray:
                    line["ray_mb_per_s"] = round(ray_speed(file, size))
                print(line, flush=True)
                body["speed"].append(line)
        for kind in FORMATS:
            for megabytes in given.memory:
                file = write(Path(folder) / f"memory.{kind}", rows(given.data, 8), megabytes * MB)
                peak = round(in_new_process(_peak, file) / MB)
                body["memory"].append({"format": kind, "megabytes": megabytes, "peak_mb": peak})
                print(body["memory"][-1], flush=True)
    given.out.write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
