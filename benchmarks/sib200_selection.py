"""Does a selection find topics it was never told? SIB-200, four owners, geography and entertainment missing.

Runs ``docs/examples/sib200.yaml`` with each strategy over one set of artifacts and prints, for each owner, the
share of selected rows of a missing topic. Topic labels are read here only, to score.

    python benchmarks/sib200_selection.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import tempfile
import time
from functools import cache
from pathlib import Path

from compass_ray import curate, load_config

CONFIG = Path(__file__).parent.parent / "docs" / "examples" / "sib200.yaml"
MISSING = {"geography", "entertainment"}


def missing_share(run_path: str, owner: str, data: Path) -> float:
    """Share of an owner's selected rows whose hidden topic is one of the missing."""
    import pyarrow.dataset as ds

    rows = ds.dataset(f"{run_path}/selection/{owner}", format="parquet").to_table(["uri", "row"]).to_pylist()
    return sum(_topics(data / "sib200" / row["uri"])[row["row"]] in MISSING for row in rows) / len(rows)


@cache
def _topics(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [row["category"] for row in csv.DictReader(stream, delimiter="\t")]


def measure(data: Path, output: str, strategies: list[str], overrides: list[str]) -> dict[str, dict[str, float]]:
    """Missing-topic share by strategy and owner, with the mean."""
    os.environ["DATA"] = str(data)
    table: dict[str, dict[str, float]] = {}
    for strategy in strategies:
        sets = [f"output={output}", f"name={strategy}", f"sample.strategy={strategy}", *overrides]
        started = time.monotonic()
        run = curate(load_config(str(CONFIG), sets))
        shares = {owner: round(missing_share(run.path, owner, data), 4) for owner in run.languages}
        certificate = run.certificate
        table[strategy] = {
            **shares,
            "mean": round(sum(shares.values()) / len(shares), 4),
            "jsd_after_mean": round(sum(certificate[o]["after"]["jsd"] for o in shares) / len(shares), 4),
            "seconds": round(time.monotonic() - started, 1),
        }
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--strategies", default="kl,deficit,random")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/sib200_selection.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as output:
        table = measure(arguments.data.resolve(), output, arguments.strategies.split(","), arguments.overrides)
    columns = list(next(iter(table.values())))
    print("| strategy | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for strategy, row in table.items():
        print(f"| {strategy} | " + " | ".join(str(row[column]) for column in columns) + " |")
    if "random" in table and "kl" in table:
        print(f"kl / random: {table['kl']['mean'] / table['random']['mean']:.2f}")
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    arguments.json.write_text(json.dumps({"machine": machine, "rows": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
