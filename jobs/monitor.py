"""Watch usage on a cluster: ``ray job submit --working-dir . -- python jobs/monitor.py CONFIG [--set a.b=c] ...``.

The driver joins the cluster it was submitted to, prints verdicts as JSON, and exits with 10 if usage of any language
has drifted, with 11 if there is usage in a language of which no former usage is known, else with the code of the error
tree: what a scheduler needs to start an update.
"""

from __future__ import annotations

import sys

from compass_ray import load_config, monitor_usage
from compass_ray.cli.driver import CONFIG, run_job
from compass_ray.cli.report import print_json


def main() -> int:
    run = run_job("Say whether usage has drifted.", load_config, monitor_usage, CONFIG)
    print_json({"path": run.path, "verdicts": run.verdicts})
    return run.exit_code


if __name__ == "__main__":
    sys.exit(main())
