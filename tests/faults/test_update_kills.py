"""The driver of an update is killed with SIGKILL in its training; the candidate must be that of an undisturbed one."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from loop import Loop, states
from processes import Run, end_workers

from compass_ray.adapt.training.checkpoints import Checkpoint, Checkpoints, load
from compass_ray.pipelines.registry import list_adapters
from compass_ray.registry.contents import WEIGHTS

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1800)]  # up to three commands, each with a Ray of its own

STEPS = 40
_PATIENCE = 600
"""Seconds: two groups of workers start, one after the other, on a machine that may be busy."""


class Update(Run):
    """An update of Swahili with replay and penalty, long enough to be hit."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        config = loop.config(
            "moved", "adapt.training.epochs=40", f"adapt.training.max_steps={STEPS}", "adapt.lora.dropout=0.1",
            "adapt.workers.checkpoint_steps=4", "ray.num_cpus=2",
        )  # fmt: skip
        super().__init__("update", config, folder)

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint."""
        for folder in self.output.glob("cache/adapter-sw-*/_training"):
            if (newest := Checkpoints(str(folder)).latest()) is not None:
                return load(newest)
        return None

    def reached(self, step: int) -> Checkpoint:
        """Wait for a checkpoint at or after an update of the weights, before the end."""
        self.wait_for(
            lambda: (found := self.checkpoint()) is not None and found.state.step >= step, f"update {step}", _PATIENCE
        )
        found = self.checkpoint()
        assert found is not None, "the training ended before it could be hit"
        return found

    def curve(self) -> list[dict[str, Any]]:
        """What was said of every update of the weights."""
        rows: list[dict[str, Any]] = pq.read_table(
            self.output / f"runs/{self.name}/update/sw/curve.parquet"
        ).to_pylist()
        return rows


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """A champion with dropout, so that the state of random numbers matters."""
    made = Loop.in_folder(tmp_path_factory.mktemp("loop"))
    Run("adapt", made.config("same", "adapt.lora.dropout=0.1", "ray.num_cpus=2"), made.files / "adapt").finish(
        timeout_s=_PATIENCE
    )
    made.registry.promote("sw@candidate")
    return made


@pytest.fixture(scope="module")
def undisturbed(champion: Loop, tmp_path_factory: pytest.TempPathFactory) -> Update:
    folder = tmp_path_factory.mktemp("calm")
    run = Update(champion.copied(folder), folder)
    run.finish(timeout_s=_PATIENCE)
    assert len(run.curve()) == STEPS
    return run


def timeless(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in curve]


def check_same(loop: Loop, run: Update, undisturbed: Update) -> None:
    """The loss curve, the version and the weights are those of an update that nothing has disturbed."""
    calm = replace(loop, output=undisturbed.output)
    assert timeless(run.curve()) == timeless(undisturbed.curve())
    assert states(loop) == states(calm)
    candidate, expected = (each.registry.open("sw@candidate") for each in (loop, calm))
    assert candidate.read(WEIGHTS) == expected.read(WEIGHTS)


def test_a_killed_driver_leaves_no_half_version_and_the_same_command_again_makes_the_same_candidate(
    champion: Loop, tmp_path: Path, undisturbed: Update
) -> None:
    loop = champion.copied(tmp_path)
    before = loop.registry.open("sw@champion"), states(loop), list_adapters(loop.registry.url)
    run = Update(loop, tmp_path)
    checkpoint = run.reached(8)
    left = run.kill()
    assert not list(run.output.glob("runs/*/update/update.json"))
    assert (loop.registry.open("sw@champion"), states(loop), list_adapters(loop.registry.url)) == before

    again = Update(loop, tmp_path)
    again.finish(timeout_s=_PATIENCE)
    assert loop.registry.open("sw@champion") == before[0]
    check_same(loop, again, undisturbed)
    kept = [entry["seconds"] for entry in checkpoint.state.curve]
    assert [row["seconds"] for row in again.curve()][: len(kept)] == kept, (
        "updates before the checkpoint are not redone"
    )
    end_workers(left)


@pytest.mark.release
def test_a_killed_worker_changes_nothing(champion: Loop, tmp_path: Path, undisturbed: Update) -> None:
    loop = champion.copied(tmp_path)
    run = Update(loop, tmp_path)
    run.reached(8)
    os.kill(run.workers("ray::RayTrainWorker")[0], signal.SIGKILL)
    run.finish(timeout_s=_PATIENCE)
    check_same(loop, run, undisturbed)


@pytest.mark.release
@pytest.mark.parametrize("stage", ["fisher-sw", "gather"])
def test_a_driver_killed_before_the_training_changes_nothing(
    champion: Loop, tmp_path: Path, undisturbed: Update, stage: str
) -> None:
    """At the moment in which an earlier stage begins to write."""
    loop = champion.copied(tmp_path)
    before = states(loop)
    there = set(loop.output.glob(f"cache/{stage}-*"))
    run = Update(loop, tmp_path)
    run.wait_for(lambda: set(loop.output.glob(f"cache/{stage}-*")) - there, stage, _PATIENCE)
    left = run.kill()
    assert states(loop) == before
    again = Update(loop, tmp_path)
    again.finish(timeout_s=_PATIENCE)
    check_same(loop, again, undisturbed)
    end_workers(left)
