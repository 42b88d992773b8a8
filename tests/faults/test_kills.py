"""The kill matrix of curation: real processes get SIGKILL, and the run must have the bytes of an undisturbed one.

A cell is a victim and the stage in which it dies. ``COMPASS_FAULTS_JSON`` names a file for what each cell cost in
seconds; ``docs/howto/reliability.md`` holds the table. CI runs the cells without the mark ``release``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clusters import Cluster, cluster_of
from demo import demo_config
from processes import Run, end_workers
from trees import tree_bytes

from compass_ray.artifacts import digest

pytestmark = pytest.mark.faults

SLOW = (  # many shards and clusters, so that every stage lasts long enough to be hit
    "ingest.shard_bytes=4096", "cluster.n_clusters=100", "cluster.tol=0", "cluster.max_iterations=60",
    "cluster.actors=2", "embed.actors=2",
)  # fmt: skip
STAGES = ("ingest", "embed", "codebook", "assign", "near_usage", "sample", "select")
BUSY = {  # what a worker process is called while it works for a stage
    "ingest": "(_write_shard)",
    "embed": "MapBatches(ShardEmbedder)",
    "codebook": "ray::FitActor.call",
    "assign": "ray::_assign_shard",
    "near_usage": "ray::_near_usage_of_shard",
    "sample": "ray::_candidates_of_shard",
    "select": "ray::_select_shard",
}
SINGLE = ("codebook", "sample")
"""Stages whose files are written together at the end: they have no part to go on with."""


def _matrix(victim: str, *stages: str, in_ci: str) -> list[Any]:
    return [
        pytest.param(stage, id=f"{victim}-{stage}", marks=[] if stage == in_ci else pytest.mark.release)
        for stage in stages
    ]


class Curation(Run):
    """The demo curated, in 128 shards."""

    def __init__(self, folder: Path, *overrides: str, cluster: Cluster | None = None) -> None:
        config = demo_config(folder / "out", *SLOW, *overrides)
        if cluster is None:
            super().__init__("curate", config, folder)
        else:
            super().__init__("curate", config, folder, cluster.variables, cluster.processes)

    def in_midst_of(self, stage: str) -> None:
        """Wait until a stage is at work: with a few shards done, or its tasks running."""
        if stage in SINGLE:
            self.wait_for(lambda: self.workers(BUSY[stage]), f"{stage} at work")
        else:
            self.wait_for(lambda: self.receipts(stage) >= 4, f"a few shards of {stage}")
        assert not self.is_complete(stage), f"{stage} ended before it could be hit"

    @property
    def folder(self) -> Path:
        return self.output / "runs" / self.name

    @property
    def is_published(self) -> bool:
        return (self.folder / "run.json").exists() or (self.folder / "selection").exists()

    @property
    def stages(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "run.json").read_text())["stages"]
        return found

    def content(self) -> dict[str, bytes]:
        """What the guarantee of equal bytes is about."""
        selection = tree_bytes(self.folder / "selection")
        return selection | {name: (self.folder / name).read_bytes() for name in ("gaps.parquet", "certificate.json")}


@dataclass(frozen=True)
class Undisturbed:
    content: dict[str, bytes]
    seconds: float


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    run = Curation(tmp_path_factory.mktemp("calm"))
    run.finish()
    return Undisturbed(run.content(), run.seconds)


@pytest.fixture
def record(request: pytest.FixtureRequest, calm: Undisturbed) -> Callable[..., None]:
    """``record(seconds=...)`` keeps what this cell cost beside the undisturbed run."""

    def append(**figures: float) -> None:
        if path := os.environ.get("COMPASS_FAULTS_JSON"):
            entry = {"cell": request.node.name, "undisturbed_s": calm.seconds, **figures}
            with Path(path).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({k: round(v, 1) if isinstance(v, float) else v for k, v in entry.items()}))
                lines.write("\n")

    return append


ACTORS = {
    "embed": "MapWorker(MapBatches(ShardEmbedder)",
    "codebook": "ray::FitActor",
    "sample": "ray::Sampler",
}


@pytest.mark.parametrize("stage", _matrix("actor", *ACTORS, in_ci="sample"))
def test_a_killed_actor_changes_no_byte(
    stage: str, tmp_path: Path, calm: Undisturbed, record: Callable[..., None]
) -> None:
    run = Curation(tmp_path)
    run.in_midst_of(stage)
    victim = run.wait_for(lambda: run.workers(ACTORS[stage]), f"actor of {stage}")[0]
    os.kill(victim, signal.SIGKILL)
    assert not run.is_complete(stage)
    run.finish()
    assert run.content() == calm.content
    record(seconds=run.seconds)


NEAR = "ingest.minhash={similarity: 0.5, words: 1}"


@pytest.fixture(scope="module")
def calm_without_near_duplicates(tmp_path_factory: pytest.TempPathFactory) -> Curation:
    run = Curation(tmp_path_factory.mktemp("near"), NEAR)
    run.finish()
    return run


@pytest.mark.release
@pytest.mark.parametrize("busy", ["ray::_split", "ray::_combined"])
def test_a_worker_killed_while_near_duplicates_are_found_changes_no_byte(
    busy: str, tmp_path: Path, calm_without_near_duplicates: Curation
) -> None:
    run = Curation(tmp_path, NEAR)
    os.kill(run.wait_for(lambda: run.workers(busy), f"a worker of {busy}")[0], signal.SIGKILL)
    assert not run.is_complete("ingest")
    run.finish()
    assert run.content() == calm_without_near_duplicates.content()
    assert run.stages["minhash"]["rows"] == calm_without_near_duplicates.stages["minhash"]["rows"] > 0


@pytest.mark.parametrize("stage", _matrix("node", *STAGES, in_ci="codebook"))
def test_a_lost_worker_node_changes_no_byte(
    stage: str, tmp_path: Path, calm: Undisturbed, record: Callable[..., None]
) -> None:
    with cluster_of(tmp_path / "cluster", "--workers", "2", "--cpus", "2") as cluster:
        run = Curation(tmp_path, cluster=cluster)
        run.in_midst_of(stage)
        role = run.wait_for(lambda: cluster.worker_with(BUSY[stage]), f"node at work for {stage}")
        cluster.lose(role)
        assert not run.is_complete(stage)
        run.finish()
        assert run.content() == calm.content
        record(seconds=run.seconds)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that outlives the drivers which are killed on it."""
    with cluster_of(tmp_path_factory.mktemp("shared") / "cluster") as running:
        yield running


@pytest.mark.parametrize("stage", _matrix("driver", *STAGES, in_ci="assign"))
def test_a_killed_driver_and_the_same_command_again_change_no_byte(
    stage: str, tmp_path: Path, cluster: Cluster, calm: Undisturbed, record: Callable[..., None]
) -> None:
    run = Curation(tmp_path, cluster=cluster)
    run.in_midst_of(stage)
    run.kill()
    finished = run.receipts(stage)
    assert not run.is_complete(stage)
    assert not run.is_published
    again = Curation(tmp_path, cluster=cluster)
    again.finish()
    assert again.content() == calm.content
    _did_only_what_was_missing(again, stage, finished)
    record(seconds=again.seconds)


def _did_only_what_was_missing(run: Curation, stage: str, finished: int) -> None:
    """``finished`` shards at least had been done by the run that ended in the midst of ``stage``."""
    stages = run.stages
    before = STAGES[: STAGES.index(stage)]
    assert [stages[name]["reused"] for name in before] == [True] * len(before)
    assert not stages[stage]["reused"]
    assert stages[stage]["resumed_keys"] >= finished
    if stage not in SINGLE:
        assert finished > 0


def half_written(folder: Path) -> list[Path]:
    """What stays half-written: a worker may still be at its last file when the driver has gone."""
    for _ in range(100):
        if not (found := list(folder.rglob("*.partial"))):
            return []
        time.sleep(0.1)
    return found


@pytest.mark.parametrize(
    "send", [pytest.param(signal.SIGTERM, id="SIGTERM"), pytest.param(signal.SIGINT, marks=pytest.mark.release)]
)
def test_an_interrupted_run_says_how_to_go_on_and_leaves_nothing_half_written(
    send: signal.Signals, tmp_path: Path, calm: Undisturbed, record: Callable[..., None]
) -> None:
    run = Curation(tmp_path)
    run.in_midst_of("embed")
    if send == signal.SIGINT:
        os.killpg(run.process.pid, send)  # as a terminal does
    else:
        os.kill(run.process.pid, send)
    left = run.processes()
    said = run.finish(code=130).splitlines()[-1]
    assert said == "error: interrupted: nothing is half-written; run the same command again to go on"
    assert not run.is_published
    assert not half_written(run.output)
    finished = run.receipts("embed")
    again = Curation(tmp_path)
    again.finish()
    assert again.content() == calm.content
    _did_only_what_was_missing(again, "embed", finished)
    record(seconds=again.seconds)
    end_workers(left)


@pytest.mark.release
def test_a_lost_head_is_said_with_exit_code_4_and_another_cluster_goes_on(
    tmp_path: Path, calm: Undisturbed, record: Callable[..., None]
) -> None:
    with cluster_of(tmp_path / "first", "--workers", "1") as cluster:
        run = Curation(tmp_path, cluster=cluster)
        run.in_midst_of("embed")
        cluster.lose("head")
        finished = run.receipts("embed")
        said = run.finish(code=4).splitlines()[-1]
        address = cluster.variables["RAY_ADDRESS"]
    assert said.startswith(f"error: {address}: the head of the Ray cluster has not answered for 45 s")
    assert said.endswith("run the same command to go on where it stopped")
    assert not run.is_published
    with cluster_of(tmp_path / "second", "--workers", "1") as cluster:
        again = Curation(tmp_path, cluster=cluster)
        again.finish()
    assert again.content() == calm.content
    _did_only_what_was_missing(again, "embed", finished)
    record(seconds=again.seconds)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB; a test gives it more by remounting."""
    folder = tmp_path / "out"
    folder.mkdir()
    mounted = _mount("-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder))
    if mounted.returncode != 0:
        pytest.skip(f"needs the permission to mount a tmpfs: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=30)


def _mount(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *options], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.release
def test_a_full_disk_is_said_with_exit_code_4_and_the_run_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path, calm: Undisturbed, record: Callable[..., None]
) -> None:
    run = Curation(tmp_path)
    said = run.finish(code=4).splitlines()[-1]
    assert "No space left on device; make room" in said
    assert said.endswith("run the same command again to go on")
    assert not list(small_disk.rglob("*.partial"))
    assert not run.is_published
    receipts = [path for path in small_disk.glob("cache/*/_progress/*.json") if not path.name.startswith(".")]
    assert receipts
    for path in receipts:
        body = json.loads(path.read_text())
        assert digest((path.parent.parent / f"{body['key']}.parquet").read_bytes()) == body["hash"]
    (stage,) = {path.parent.parent.name.partition("-")[0] for path in receipts}
    assert _mount("-o", "remount,size=64m", str(small_disk)).returncode == 0
    again = Curation(tmp_path)
    again.finish()
    assert again.content() == calm.content
    assert again.stages[stage]["resumed_keys"] == len(receipts)
    record(seconds=again.seconds)


@pytest.mark.release
def test_two_runs_of_one_config_at_once_both_succeed_with_the_same_bytes(
    tmp_path: Path, calm: Undisturbed, record: Callable[..., None]
) -> None:
    runs = [Curation(tmp_path), Curation(tmp_path)]
    for run in runs:
        run.finish()
    assert runs[0].content() == calm.content
    assert runs[0].stages["select"]["rows"] == 120
    record(seconds=max(run.seconds for run in runs))
