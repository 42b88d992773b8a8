"""What a dry run predicts beside what the run then took: seconds and memory, stage by stage and in all.

    python benchmarks/preflight.py --data ../shared/data

Bars: seconds of the whole within 30 %, memory never under. Each prediction and each run has a process of its own, and
every run starts with an empty cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from million import config as corpus_config  # beside this file
from million import measure, write_corpus

from compass_ray import load_config
from compass_ray.pipelines.preflight import preflight

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "preflight.json"
NAMES = ("demo", "sib200", "30000", "100000", "100000-hashing", "100000-minhash", "1000000")
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "hashing": {"embed": {"model": "hashing"}},
    "minhash": {"ingest": {"minhash": {}}},
}


def case(name: str, data: Path, work: Path) -> dict[str, Any]:
    """The config of one run."""
    output = work / f"out-{name}"
    if name in ("demo", "sib200"):
        os.environ["DATA"] = str(data)
        file = ROOT / ("compass_ray/demo/demo.yaml" if name == "demo" else "docs/examples/sib200.yaml")
        raw: dict[str, Any] = yaml.safe_load(file.read_text())
        raw.pop("adapt", None)
        if name == "demo":
            os.environ["DEMO"] = str(ROOT / "compass_ray" / "demo")
        return raw | {"output": str(output)}
    rows, _, variant = name.partition("-")
    corpus = work / f"corpus-{rows}"
    if not corpus.exists():
        write_corpus(data, corpus, int(rows))
    return corpus_config(data, corpus, output) | VARIANTS[variant]


def predict(raw: dict[str, Any]) -> dict[str, Any]:
    found = preflight(load_config(raw))
    return {stage.stage: [stage.seconds, stage.peak_bytes] for stage in found.stages}


def compared(name: str, raw: dict[str, Any], work: Path) -> dict[str, Any]:
    """Predict, run, and put both side by side."""
    path = work / f"{name}.json"
    path.write_text(json.dumps(raw))
    shutil.rmtree(raw["output"], ignore_errors=True)
    predicted, actual = (
        json.loads(
            subprocess.run(
                [sys.executable, __file__, what, str(path)], stdout=subprocess.PIPE, check=True, text=True
            ).stdout.splitlines()[-1]
        )
        for what in ("--predict", "--run")
    )
    (work / f"{name}.measured.json").write_text(json.dumps(actual))
    stages = {
        stage["stage"]: {
            "seconds": stage["seconds"],
            "predicted_s": round(predicted[stage["stage"]][0], 1),
            "peak_bytes": stage["peak_bytes"],
            "predicted_bytes": predicted[stage["stage"]][1],
        }
        for stage in actual["stages"]
        if stage["stage"] in predicted
    }
    seconds, expected = (sum(stage[key] for stage in stages.values()) for key in ("seconds", "predicted_s"))
    peak, bound = (max(stage[key] for stage in stages.values()) for key in ("peak_bytes", "predicted_bytes"))
    shutil.rmtree(raw["output"])
    return {
        "run": name,
        "seconds": round(seconds, 1),
        "predicted_s": round(expected, 1),
        "off": round(expected / seconds - 1, 3),
        "peak_bytes": peak,
        "predicted_bytes": bound,
        "under": [name for name, stage in stages.items() if stage["predicted_bytes"] < stage["peak_bytes"]],
        "stages": stages,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("COMPASS_DATA", "../shared/data")))
    parser.add_argument("--cases", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "compass-million")
    parser.add_argument("--predict", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if path := arguments.predict or arguments.run:
        print(json.dumps((predict if arguments.predict else measure)(json.loads(path.read_text()))))
        return
    arguments.work.mkdir(exist_ok=True)
    rows = []
    for name in arguments.cases:
        rows.append(compared(name, case(name, arguments.data.resolve(), arguments.work), arguments.work))
        print(line(rows[-1]), flush=True)
        body = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
            "runs": rows,
        }
        RESULTS.write_text(json.dumps(body, indent=1) + "\n")


def line(row: dict[str, Any]) -> str:
    """One run as a line of Markdown."""
    memory = f"{row['peak_bytes'] / 1e9:.2f} | {row['predicted_bytes'] / 1e9:.2f}"
    under = ", ".join(row["under"]) or "none"
    return (
        f"| {row['run']} | {row['seconds']:.0f} | {row['predicted_s']:.0f} | {row['off']:+.0%} | {memory} | {under} |"
    )


if __name__ == "__main__":
    main()
