"""Compare candidates on a cluster: ``ray job submit --working-dir . -- python jobs/gate.py CONFIG [--set a.b=c] ...``.

The driver joins the cluster it was submitted to, measures candidates beside their champions on held-out text, promotes
those that pass, prints outcomes as JSON, and exits with 6 if one fails or is undecided, else with the code of the error
tree.
"""

from __future__ import annotations

import sys

from compass_ray import gate_candidates, load_config
from compass_ray.cli.driver import CONFIG, run_job
from compass_ray.cli.report import print_json


def main() -> int:
    run = run_job("Promote candidates that are better.", load_config, gate_candidates, CONFIG)
    print_json({"path": run.path, "outcomes": run.outcomes, "promoted": run.promoted, "not_compared": run.not_compared})
    return 0


if __name__ == "__main__":
    sys.exit(main())
