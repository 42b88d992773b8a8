#!/usr/bin/env bash
# ray 2.60.0: fit() of a Ray Train trainer puts its own handler in the place of Python's for SIGINT and leaves it there
# when it returns. From then on Ctrl-C in that process raises no KeyboardInterrupt: the handler asks the controller of
# the training that is over to abort, and returns; the third Ctrl-C ends the program with sys.exit(0), which tells a
# shell or a scheduler that all is well. try/except KeyboardInterrupt, and cleaning up that hangs on it, never run.
# Seen: the handler is Python's before fit() and DataParallelTrainer's after it; a SIGINT during time.sleep(5) does not
# end the sleep and raises nothing, a second neither, and the third raises SystemExit with code 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'ray[train]==2.60.0'
cd "$folder"
cat > train.py <<'PY'
import logging
import os
import signal
import sys
import time

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


def handler():
    found = signal.getsignal(signal.SIGINT)
    return getattr(found, "__qualname__", str(found))


def nothing():
    ray.train.report({"done": 1})


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
signal.signal(signal.SIGINT, signal.default_int_handler)
assert handler() == "default_int_handler", handler()
result = DataParallelTrainer(
    nothing, scaling_config=ScalingConfig(num_workers=1), run_config=RunConfig(name="one", storage_path=os.getcwd())
).fit()
assert result.error is None
print("after fit:", handler())
assert handler() == "DataParallelTrainer._register_sigint_handler.<locals>.sigint_handler", handler()
seen = []
for _ in range(3):
    started = time.monotonic()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
        seen.append("nothing")
    except KeyboardInterrupt:
        seen.append("KeyboardInterrupt")
    except SystemExit as exc:
        seen.append(f"SystemExit {exc.code}")
print("three times SIGINT:", seen)
assert seen == ["nothing", "nothing", "SystemExit 0"], seen
ray.shutdown()
PY
RAY_TRAIN_V2_ENABLED=1 "$folder/venv/bin/python" train.py 2> stderr || { tail -5 stderr; exit 1; }
