"""Every ZeRO stage, adapter and number of workers trains the same: equal loss curves at equal global batch and seed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_base import adapt_config

from compass_ray import train_adapters

pytestmark = pytest.mark.usefixtures("local_ray")

STEPS = 50


def curve(base: Path, output: Path, method: str, stage: int, workers: int) -> NDArray[np.float64]:
    run = train_adapters(
        adapt_config(
            output, base, "adapt.languages=[sw]", f"adapt.lora.method={method}", f"adapt.workers.zero_stage={stage}",
            f"adapt.workers.count={workers}", f"adapt.training.max_steps={STEPS}", "adapt.training.epochs=50",
            "adapt.training.learning_rate=0.002",  # DoRA amplifies rounding at higher rates
        )
    )  # fmt: skip
    losses: NDArray[np.float64] = run.curve("sw")["loss"].to_numpy()
    assert len(losses) == STEPS
    assert losses[-1] < losses[0]
    return losses


Expected = Callable[[str], NDArray[np.float64]]


@pytest.fixture(scope="module")
def expected(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Expected:
    """The curve of a method on one worker with ZeRO-1, trained when it is asked for first."""
    return cache(lambda method: curve(tiny_base, tmp_path_factory.mktemp(method), method, stage=1, workers=1))


GRID = [(method, stage, workers) for method in ("lora", "dora") for stage in (1, 2, 3) for workers in (1, 2)]
IN_CI = {("lora", 2, 2)}


@pytest.mark.parametrize(
    ("method", "stage", "workers"),
    [pytest.param(*cell, marks=pytest.mark.slow if cell in IN_CI else pytest.mark.release) for cell in GRID],
)
def test_stages_and_workers_share_one_loss_curve(
    method: str, stage: int, workers: int, tiny_base: Path, tmp_path: Path, expected: Expected
) -> None:
    found = curve(tiny_base, tmp_path, method, stage, workers)
    np.testing.assert_allclose(found, expected(method), rtol=1e-4)


@pytest.mark.release
def test_three_workers_and_small_batches_share_it_too(tiny_base: Path, tmp_path: Path, expected: Expected) -> None:
    found = curve(tiny_base, tmp_path, "lora", stage=3, workers=3)
    np.testing.assert_allclose(found, expected("lora"), rtol=1e-4)
