"""Train adapters on a cluster: ``ray job submit --working-dir . -- python jobs/adapt.py CONFIG [--set a.b=c] ...``.

The driver joins the cluster it was submitted to, prints versions and scores as JSON, and exits with the code of the
error tree. Submit the same job again after a failure: finished languages are reused, the others go on from their last
checkpoint.
"""

from __future__ import annotations

import sys

from compass_ray import load_config, train_adapters
from compass_ray.cli.driver import CONFIG, run_job
from compass_ray.cli.report import print_json


def main() -> int:
    run = run_job("Train one adapter for each language.", load_config, train_adapters, CONFIG)
    record = run.record
    print_json({"path": run.path, "registry": record["registry"], "languages": record["languages"]})
    return 0


if __name__ == "__main__":
    sys.exit(main())
