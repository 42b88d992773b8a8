"""Train a static multilingual encoder: ``python jobs/train_encoder.py RECIPE [--set a.b=c] ...``.

Reads parallel corpora, trains tokenizer and vectors (Ray Train), prunes, quantises, scores, and writes a
sentence-transformers folder with its card. Prints where it is and what it scores as JSON. Run it again after an
interruption: it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys

from compass_ray import CompassError
from compass_ray.interrupts import resumable
from compass_ray.pipelines.train_encoder import load_recipe, train_encoder


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a static multilingual encoder.")
    parser.add_argument("recipe", help="YAML recipe, such as docs/examples/bundled_encoder.yaml")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides")
    arguments = parser.parse_args()
    try:
        with resumable():
            folder, scores = train_encoder(load_recipe(arguments.recipe, arguments.overrides))
    except CompassError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return exc.exit_code
    retrieval, topics = scores.mean()
    sys.stdout.write(json.dumps({"path": str(folder), "retrieval": retrieval, "topics": topics}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
