"""Size against quality of the static encoder: vocabulary, dimension, bits, and languages it never saw.

    TEACHER=<folder with all-MiniLM-L6-v2> python benchmarks/encoder_curve.py --data ../shared/data

Trains the recipe of the bundled encoder at other sizes. A point with fewer bits is the same model with coarser
vectors; its size is what they would take. ``--points`` picks some; points finished with as many steps are kept in the
JSON and not trained again, and ``--work`` with the recipe's output uses again what that has trained.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from compass_ray.pipelines.train_encoder import EncoderRecipe, load_recipe, score_encoder, train_encoder

RECIPE = Path(__file__).parent.parent / "docs" / "examples" / "bundled_encoder.yaml"
PIVOT = "eng_Latn"
UNSEEN = (
    "swe_Latn ukr_Cyrl npi_Deva zul_Latn hau_Latn som_Latn fin_Latn tel_Telu ell_Grek kor_Hang lao_Laoo mya_Mymr "
    "hye_Armn"
)
POINTS = {
    "36k x 384": [],
    "36k x 384, languages left out": ["unseen"],
    "36k x 256": ["training.dim=256"],
    "36k x 128": ["training.dim=128"],
    "36k x 64": ["training.dim=64"],
    "28k x 256": ["training.vocab_size=28000", "training.dim=256"],
    "16k x 384": ["training.vocab_size=16000"],
    "36k x 384, no teacher": ["training.teachers=[]"],
    "36k x 384, no language favoured": ["training.favour=1"],
    "36k x 384, SIB-200 only": ["corpora=sib"],
}
BITS_OF = "36k x 384"
"""The point whose vectors are also tried with fewer bits."""


def recipe_of(point: str, output: str, steps: int) -> EncoderRecipe:
    name = "".join(letter if letter.isalnum() else "-" for letter in point)
    overrides = [f"output={output}", f"name={name}", f"training.steps={steps}"]
    recipe = load_recipe(RECIPE, overrides + [item for item in POINTS[point] if "training." in item])
    changes: dict[str, Any] = {}
    if "corpora=sib" in POINTS[point]:
        changes["corpora"] = {name: corpus for name, corpus in recipe.corpora.items() if name.startswith("SIB")}
    if "unseen" in POINTS[point]:
        left_out = set(UNSEEN.split())
        changes["exclude_languages"] = sorted(left_out)
        favoured = [lang for lang in recipe.training.favoured if lang not in left_out]
        changes["training"] = recipe.training.model_copy(update={"favoured": favoured})
    return recipe.model_copy(update=changes)


def coarser(folder: Path, bits: int, target: Path) -> Path:
    """A copy of a model whose vectors keep fewer bits, to see what bits are worth."""
    target.mkdir(parents=True)
    for file in folder.rglob("*"):
        if file.is_file():
            (target / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (target / file.relative_to(folder)).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    step = 127 / (2 ** (bits - 1) - 1)
    weights["embeddings"] = np.rint(np.rint(weights["embeddings"] / step) * step).astype(np.int8)
    save_file(weights, target / "model.safetensors")
    return target


def row(scores: Any, languages: list[str], size: int) -> dict[str, Any]:
    retrieval, topics = scores.mean(languages)
    everywhere, topics_everywhere = scores.mean()
    return {
        "bytes": size,
        "retrieval@1": round(retrieval, 4),
        "topics": round(topics, 4),
        "lowest": "{} {:.3f}".format(*scores.worst(languages)),
        "retrieval@1, all": round(everywhere, 4),
        "topics, all": round(topics_everywhere, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--points", default=";".join(POINTS))
    parser.add_argument("--work", type=Path, help="folder for what points share, kept; a temporary one if not given")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/encoder_curve.json"))
    arguments = parser.parse_args()
    os.environ["DATA"] = str(arguments.data.resolve())
    table = json.loads(arguments.json.read_text(encoding="utf-8"))["rows"] if arguments.json.exists() else {}
    temporary = tempfile.TemporaryDirectory()
    output = str(arguments.work or temporary.name)
    for point in arguments.points.split(";"):
        if table.get(point, {}).get("steps") != arguments.steps:
            started = time.monotonic()
            recipe = recipe_of(point, output, arguments.steps)
            languages = [lang for lang in load_recipe(RECIPE).training.favoured if lang != PIVOT]
            folder, scores = train_encoder(recipe)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            table[point] = {**row(scores, languages, size), "steps": arguments.steps}
            if "unseen" in POINTS[point]:
                hashed = score_encoder("hashing", recipe)
                table[point]["unseen"] = {
                    lang: {
                        "retrieval": round(scores.retrieval[lang], 4),
                        "hashing": round(hashed.retrieval[lang], 4),
                        "topics": round(scores.topics[lang], 4),
                        "hashing topics": round(hashed.topics[lang], 4),
                    }
                    for lang in UNSEEN.split()
                }
            if point == BITS_OF:
                for bits in (6, 4):
                    fewer = coarser(folder, bits, Path(temporary.name, f"bits{bits}"))
                    found = score_encoder(str(fewer), recipe)
                    table[f"{point}, {bits} bits"] = {
                        **row(found, languages, size * bits // 8),
                        "steps": arguments.steps,
                    }
            table[point]["seconds"] = round(time.monotonic() - started)
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(
            json.dumps({"date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count(), "rows": table}, indent=1) + "\n",
            encoding="utf-8",
        )
    temporary.cleanup()
    columns = ["bytes", "retrieval@1", "topics", "lowest", "retrieval@1, all", "topics, all"]
    print("| size | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for point, scores in table.items():
        print(f"| {point} | " + " | ".join(str(scores[column]) for column in columns) + " |")


if __name__ == "__main__":
    main()
