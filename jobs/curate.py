"""Curate on a cluster: ``ray job submit --working-dir . -- python jobs/curate.py CONFIG [--set a.b=c] ...``.

The driver joins the cluster it was submitted to, prints the certificate as JSON, and exits with the code of
the error tree. Submit the same job again after a failure: it goes on from the last finished shard.
"""

from __future__ import annotations

import argparse
import json
import sys

from compass_ray import CompassError, curate, load_config
from compass_ray.interrupts import resumable


def main() -> int:
    parser = argparse.ArgumentParser(description="Select pool documents for every target language.")
    parser.add_argument("config", help="YAML config: a file of the working dir, or s3://")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides")
    arguments = parser.parse_args()
    try:
        with resumable():
            run = curate(load_config(arguments.config, arguments.overrides))
    except CompassError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return exc.exit_code
    sys.stdout.write(json.dumps({"path": run.path, "certificate": run.certificate}, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
