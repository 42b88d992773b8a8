"""Curate on a cluster: ``ray job submit --working-dir . -- python jobs/curate.py CONFIG [--set a.b=c] ...``.

The driver joins the cluster it was submitted to, prints the certificate as JSON, and exits with the code of
the error tree. Submit the same job again after a failure: it goes on from the last finished shard.
"""

from __future__ import annotations

import sys

from compass_ray import curate, load_config
from compass_ray.cli.driver import CONFIG, run_job
from compass_ray.cli.report import print_json


def main() -> int:
    run = run_job("Select pool documents for every target language.", load_config, curate, CONFIG)
    print_json({"path": run.path, "certificate": run.certificate})
    return 0


if __name__ == "__main__":
    sys.exit(main())
