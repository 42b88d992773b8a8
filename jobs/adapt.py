"""Train adapters on a cluster: ``ray job submit --working-dir . -- python jobs/adapt.py CONFIG [--set a.b=c] ...``.

The driver joins the cluster it was submitted to, prints versions and scores as JSON, and exits with the code of the
error tree. Submit the same job again after a failure: finished languages are reused, the others go on from their last
checkpoint.
"""

from __future__ import annotations

import argparse
import json
import sys

from compass_ray import CompassError, load_config, train_adapters
from compass_ray.interrupts import resumable


def main() -> int:
    parser = argparse.ArgumentParser(description="Train one adapter for each language.")
    parser.add_argument("config", help="YAML config: a file of the working dir, or s3://")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides")
    arguments = parser.parse_args()
    try:
        with resumable():
            run = train_adapters(load_config(arguments.config, arguments.overrides))
    except CompassError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return exc.exit_code
    record = run.record
    body = {"path": run.path, "registry": record["registry"], "languages": record["languages"]}
    sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
