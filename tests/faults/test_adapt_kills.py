"""Training workers and drivers are killed with SIGKILL; the loss curve must be that of an undisturbed training."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from demo import current_texts
from numpy.typing import NDArray
from processes import Run, end_workers
from tiny_base import adapt_config, write_tiny_base

from compass_ray.adapt.training.checkpoints import Checkpoint, Checkpoints, load

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]  # two trainings, each with a cluster of its own


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough for an update to take a moment in which it can be hit."""
    texts = [text for group in current_texts().values() for text in group]
    size = {"hidden_size": 256, "intermediate_size": 512, "layers": 4}
    return write_tiny_base(tmp_path_factory.mktemp("base") / "small", texts, **size)


class Training(Run):
    """A Swahili adapter on two workers, with dropout, so that the state of random numbers matters."""

    def __init__(self, folder: Path, base: Path) -> None:
        config = adapt_config(
            folder / "out", base, "adapt.languages=[sw]", "adapt.workers.count=2", "adapt.workers.checkpoint_steps=4",
            "adapt.lora.dropout=0.1", "adapt.training.epochs=40", "adapt.training.max_steps=40",
            "adapt.training.learning_rate=0.002", "ray.num_cpus=2",
        )  # fmt: skip
        super().__init__("adapt", config, folder)

    def losses(self) -> NDArray[np.float64]:
        self.finish()
        losses: NDArray[np.float64] = self.curve("loss")
        assert len(losses) == 40
        assert losses[-1] < losses[0]
        return losses

    def curve(self, column: str) -> NDArray[np.float64]:
        values: NDArray[np.float64] = pq.read_table(self.output / "runs/adapted/adapt/sw/curve.parquet")[
            column
        ].to_numpy()
        return values

    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint."""
        for folder in self.output.glob("cache/adapter-sw-*/_training"):
            if (newest := Checkpoints(str(folder)).latest()) is not None:
                return load(newest)
        return None

    def reached(self, step: int) -> Checkpoint:
        """Wait for a checkpoint at or after an update, well before the end."""
        self.wait_for(lambda: (found := self.checkpoint()) is not None and found.state.step >= step, f"update {step}")
        found = self.checkpoint()
        assert found is not None, "the training ended before it could be hit"
        assert not list(self.output.glob("cache/adapter-sw-*/manifest.json"))
        return found


@pytest.fixture(scope="module")
def undisturbed(base: Path, tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float64]:
    return Training(tmp_path_factory.mktemp("calm"), base).losses()


def resumed(run: Training, checkpoint: Checkpoint) -> bool:
    """Whether the updates before the checkpoint were kept, not made again: their seconds are those it holds."""
    before = [entry["seconds"] for entry in checkpoint.state.curve]
    return run.curve("seconds")[: len(before)].tolist() == before


def test_a_killed_worker_changes_no_loss(base: Path, tmp_path: Path, undisturbed: NDArray[np.float64]) -> None:
    run = Training(tmp_path, base)
    checkpoint = run.reached(8)
    workers = run.workers("ray::RayTrainWorker")
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGKILL)
    np.testing.assert_allclose(run.losses(), undisturbed, rtol=0, atol=1e-6)
    assert resumed(run, checkpoint)


@pytest.mark.release
def test_a_killed_driver_and_a_second_run_change_no_loss(
    base: Path, tmp_path: Path, undisturbed: NDArray[np.float64]
) -> None:
    run = Training(tmp_path, base)
    checkpoint = run.reached(8)
    left = run.kill()
    assert not (run.output / "registry").exists()
    again = Training(tmp_path, base)
    np.testing.assert_allclose(again.losses(), undisturbed, rtol=0, atol=1e-6)
    assert resumed(again, checkpoint)
    end_workers(left)
