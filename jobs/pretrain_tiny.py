"""Train a small base model from scratch: ``python jobs/pretrain_tiny.py RECIPE [--set a.b=c] ...``.

Learns a byte-level BPE and a Qwen2 model of a few million parameters on multilingual text with Ray Train, and writes a
folder that ``adapt.base`` takes. Prints where it is and how well it predicts held-out text as JSON. Run it again after
an interruption: it goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import sys

from compass_ray.cli.driver import Argument, run_job
from compass_ray.pipelines.pretrain import load_base_recipe, pretrain


def main() -> int:
    recipe = Argument("recipe", "YAML recipe, such as docs/examples/tiny_base.yaml")
    folder, score = run_job("Train a small base model from scratch.", load_base_recipe, pretrain, recipe)
    sys.stdout.write(json.dumps({"path": str(folder), "heldout": None if score is None else score.to_json()}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
