"""Does adapting on a curated selection help a base that has never seen the language? Swahili and Tamil, SIB-200 test.

Runs ``docs/examples/sw_ta_adapters.yaml`` (curate, then adapt) on the small base of the demo, and measures bits per
byte of the test sentences of both languages, which no part of the run has seen, before and after.

    python benchmarks/adapt_sib200.py --data ../shared/data
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

from compass_ray import load_config, train_adapters
from compass_ray.models import weights_hash
from compass_ray.registry.store import Registry

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "docs" / "examples" / "sw_ta_adapters.yaml"
BASE = ROOT / "compass_ray" / "demo" / "base"
FOLDERS = {"sw": "swh_Latn", "ta": "tam_Taml"}


def measure(data: Path, output: str, base: Path = BASE, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Curate, adapt and score; bits per byte by language, and whether the base kept its bytes."""
    os.environ |= {"DATA": str(data), "BASE": str(base), "OUTPUT": output}
    before = weights_hash(base)
    started = time.monotonic()
    run = train_adapters(load_config(str(CONFIG), overrides))
    seconds = time.monotonic() - started
    registry = Registry(run.record["registry"])
    rows = {}
    for lang, folder in FOLDERS.items():
        texts = _sentences(data / "sib200" / folder / "test.tsv")
        with tempfile.TemporaryDirectory() as adapter:
            registry.open(f"{lang}@candidate").download(Path(adapter))
            plain, adapted = bits_per_byte(base, None, texts), bits_per_byte(base, Path(adapter), texts)
        rows[lang] = {
            "documents": run.record["documents"][lang]["train"],
            "updates": run.curve(lang).num_rows,
            "base": round(plain, 4),
            "adapted": round(adapted, 4),
            "change": round(adapted / plain - 1, 4),
        }
    return {
        "languages": rows,
        "base_unchanged": weights_hash(base) == before,
        "parameters": sum(tensor.numel() for tensor in _weights(base).values()),
        "seconds": round(seconds, 1),
    }


def bits_per_byte(base: Path, adapter: Path | None, texts: list[str]) -> float:
    """Of a base, with an adapter or without, as transformers and PEFT load them."""
    import numpy as np
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from compass_ray.adapt.examples import text_example
    from compass_ray.adapt.packing import batch, make_packs
    from compass_ray.adapt.scores import Score
    from compass_ray.adapt.training.engine import CausalLoss

    tokenizer = AutoTokenizer.from_pretrained(str(base))
    model: Any = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter))
    loss = CausalLoss(model.eval())
    packs = make_packs([text_example(tokenizer, text, 512) for text in texts], 512)
    nats = 0.0
    with torch.no_grad():
        for number in np.arange(len(packs)).tolist():
            arrays = batch(packs, [number], 0)
            nats += float(loss(**{name: torch.from_numpy(array) for name, array in arrays.items()}))
    return Score(nats, int(packs.trained.sum()), int(packs.n_bytes.sum()), len(texts)).bits_per_byte


def _sentences(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream, delimiter="\t")]


def _weights(base: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(base / "model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    parser.add_argument("--output", help="Kept if given")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/adapt_sib200.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = arguments.output or folder
        figures = measure(arguments.data.resolve(), output, arguments.base.resolve(), tuple(arguments.overrides))
    print("| | documents | updates | base | adapted | change |\n|---|---|---|---|---|---|")
    for lang, row in figures["languages"].items():
        print(
            f"| {lang} | {row['documents']:,} | {row['updates']} | {row['base']:.3f} | {row['adapted']:.3f} | "
            f"{row['change']:+.1%} |"
        )
    print(f"{figures['parameters']:,} parameters; {figures['seconds']} s")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"machine": machine, **figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
