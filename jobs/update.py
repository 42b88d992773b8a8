"""Update adapters on a cluster: ``ray job submit --working-dir . -- python jobs/update.py CONFIG [--set a.b=c] ...``.

The driver joins the cluster it was submitted to, watches usage, updates the adapters of languages whose usage has
drifted, prints what came out as JSON, and exits with the code of the error tree. Submit the same job again after a
failure: trainings go on from their last checkpoint, and champions are as they were.
"""

from __future__ import annotations

import sys

from compass_ray import load_config, update_adapters
from compass_ray.cli.driver import CONFIG, run_job
from compass_ray.cli.report import print_json


def main() -> int:
    run = run_job("Update adapters whose usage has drifted.", load_config, update_adapters, CONFIG)
    versions = {lang: line["version"] for lang, line in run.languages.items()}
    print_json({"path": run.path, "verdicts": run.record["verdicts"], "versions": versions, "unchanged": run.unchanged})
    return 0


if __name__ == "__main__":
    sys.exit(main())
