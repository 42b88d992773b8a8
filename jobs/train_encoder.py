"""Train a static multilingual encoder: ``python jobs/train_encoder.py RECIPE [--set a.b=c] ...``.

Reads parallel corpora, trains tokenizer and vectors (Ray Train), prunes, quantises, scores, and writes a
sentence-transformers folder with its card. Prints where it is and what it scores as JSON. Run it again after an
interruption: it goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import sys

from compass_ray.cli.driver import Argument, run_job
from compass_ray.pipelines.train_encoder import load_recipe, train_encoder


def main() -> int:
    recipe = Argument("recipe", "YAML recipe, such as docs/examples/bundled_encoder.yaml")
    folder, scores = run_job("Train a static multilingual encoder.", load_recipe, train_encoder, recipe)
    retrieval, topics = scores.mean()
    sys.stdout.write(json.dumps({"path": str(folder), "retrieval": retrieval, "topics": topics}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
