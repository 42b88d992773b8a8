"""Watch usage on a cluster: ``ray job submit --working-dir . -- python jobs/monitor.py CONFIG [--set a.b=c] ...``.

The driver joins the cluster it was submitted to, prints verdicts as JSON, and exits with 10 if usage of any language
has drifted, with 11 if there is usage in a language of which no former usage is known, else with the code of the error
tree: what a scheduler needs to start an update.
"""

from __future__ import annotations

import argparse
import json
import sys

from compass_ray import CompassError, load_config, monitor_usage
from compass_ray.interrupts import resumable


def main() -> int:
    parser = argparse.ArgumentParser(description="Say whether usage has drifted.")
    parser.add_argument("config", help="YAML config: a file of the working dir, or s3://")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", dest="overrides")
    arguments = parser.parse_args()
    try:
        with resumable():
            run = monitor_usage(load_config(arguments.config, arguments.overrides))
    except CompassError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return exc.exit_code
    sys.stdout.write(json.dumps({"path": run.path, "verdicts": run.verdicts}, ensure_ascii=False) + "\n")
    return run.exit_code


if __name__ == "__main__":
    sys.exit(main())
