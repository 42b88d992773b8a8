"""The loop on a real Ray: it learns, with any number of workers, and its failures are ours."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray.exceptions
import torch
from numpy.typing import NDArray
from rich.console import Console

from compass_ray.embed.training.bags import BatchSampler, TokenBags, make_bags
from compass_ray.embed.training.config import EncoderTraining
from compass_ray.embed.training.contrastive import StaticTable, batch_loss, first_vectors
from compass_ray.embed.training.trainer import one_cycle, train_table
from compass_ray.errors import CompassError, NonFiniteLoss, ResourcesMissing, WorkerLost
from compass_ray.runtime.cluster import ray_errors
from compass_ray.runtime.progress import Display

N_PIECES, DIM = 60, 8


def training(**changes: Any) -> EncoderTraining:
    small = {"dim": DIM, "steps": 20, "batch_groups": 16, "learning_rate": 0.05, "token_dropout": 0.0}
    return EncoderTraining.model_validate({**small, **changes})


@pytest.fixture(scope="module")
def bags() -> TokenBags:
    """Forty sentences of two words in three languages; word w is token w, w + 20 or w + 40."""
    rng = np.random.default_rng(0)
    words = [rng.choice(20, size=2, replace=False) for _ in range(40)]
    ids = [(pair + 20 * lang).astype(np.int32) for pair in words for lang in range(3)]
    return make_bags(ids, np.repeat(np.arange(40), 3), np.zeros(120, dtype=np.int32), np.ones(120))[0]


@pytest.fixture(scope="module")
def first(bags: TokenBags) -> NDArray[np.float32]:
    return first_vectors(bags, N_PIECES, DIM, 4.0, 0.02, 0, None, None)


def train(bags: TokenBags, first: NDArray[np.float32], folder: Path, config: EncoderTraining) -> NDArray[np.float32]:
    display = Display(Console(file=io.StringIO()))
    with ray_errors():
        return train_table(bags, {0: config.batch_groups}, first, None, None, config, str(folder), display)


def loss_of(vectors: NDArray[np.float32], bags: TokenBags) -> float:
    batch = BatchSampler(bags, {0: 40}, 0.0, seed=99).batch(0)
    with torch.no_grad():
        return float(batch_loss(StaticTable(vectors.copy(), None), batch, None, 20.0, 0.0))


@pytest.mark.release
@pytest.mark.parametrize("workers", [1, 2])
def test_training_lowers_the_loss(
    local_ray: None, bags: TokenBags, first: NDArray[np.float32], tmp_path: Path, workers: int
) -> None:
    before = first.tobytes()
    vectors = train(bags, first, tmp_path, training(workers=workers))
    assert (vectors.shape, vectors.dtype) == ((N_PIECES, DIM), np.float32)
    assert loss_of(vectors, bags) < 0.5 * loss_of(first, bags)
    assert first.tobytes() == before


@pytest.mark.release
def test_a_loss_that_is_not_finite_is_our_error_and_says_what_to_do(
    local_ray: None, bags: TokenBags, first: NDArray[np.float32], tmp_path: Path
) -> None:
    with pytest.raises(NonFiniteLoss) as caught:
        train(bags, first, tmp_path, training(learning_rate=1e39))
    assert str(caught.value) == "training: the loss is nan at step 1; lower training.learning_rate"
    assert caught.value.exit_code == 5


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            training(workers=5),
            "training.workers: 5 workers with 1 CPUs each do not fit into the cluster, which has room for 4; "
            "lower training.workers or join a larger cluster",
        ),
        (
            training(workers=3, threads=2),
            "training.workers: 3 workers with 2 CPUs each do not fit into the cluster, which has room for 2; "
            "lower training.workers or join a larger cluster",
        ),
        (
            training(threads=64),
            "training.threads: one actor asks for num_cpus 64 and num_gpus 0, but the largest node has 4 CPUs and "
            "0 GPUs; lower them (num_gpus 0 runs on CPUs) or join a larger cluster",
        ),
    ],
)
def test_workers_that_do_not_fit_are_refused_at_once(
    local_ray: None,
    bags: TokenBags,
    first: NDArray[np.float32],
    tmp_path: Path,
    config: EncoderTraining,
    message: str,
) -> None:
    if ray.cluster_resources()["CPU"] != 4 or ray.cluster_resources().get("GPU"):
        pytest.skip("another cluster was joined")
    with pytest.raises(ResourcesMissing) as caught:
        train(bags, first, tmp_path, config)
    assert str(caught.value) == message
    assert not list(tmp_path.iterdir())


def test_the_learning_rate_rises_for_three_tenths_and_falls_to_nothing() -> None:
    rates = [one_cycle(step, 100, 0.2) for step in range(100)]
    assert np.argmax(rates) == 29
    assert rates[29] == pytest.approx(0.2)
    assert (np.diff(rates[:30]) > 0).all()
    assert (np.diff(rates[29:]) < 0).all()
    assert rates[14] == pytest.approx(0.1)
    assert 0 < rates[0] < 0.001
    assert rates[-1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_very_short_training_has_learning_rates_too(steps: int) -> None:
    rates = [one_cycle(step, steps, 0.2) for step in range(steps)]
    assert max(rates) == pytest.approx(0.2)
    assert min(rates) >= 0


# --- Ray Train's errors -------------------------------------------------------------------------


def failed(**failures: Exception) -> Exception:
    from ray.train import WorkerGroupError

    return WorkerGroupError("two workers", dict(enumerate(failures.values())))


def raised(error: Exception) -> Exception:
    with pytest.raises(Exception) as caught, ray_errors():
        raise error
    return caught.value


def test_our_error_of_any_worker_is_the_error_of_the_training() -> None:
    ours = NonFiniteLoss("the loss is nan")
    found = raised(failed(first=RuntimeError("connection closed by peer"), second=ours))
    assert type(found) is NonFiniteLoss
    assert str(found) == "the loss is nan"


def test_a_worker_that_died_is_lost_whatever_the_others_say() -> None:
    died = ray.exceptions.WorkerCrashedError()
    found = raised(failed(first=RuntimeError("connection closed by peer"), second=died))
    assert type(found) is WorkerLost
    assert str(found).startswith("Ray gave up on a worker (WorkerGroupError: Training failed due to worker errors:\n")
    assert str(found).endswith("run the same command again to go on where it stopped")


def test_a_fault_in_the_loop_keeps_its_class() -> None:
    error = failed(first=KeyError("x"))
    assert raised(error) is error


@pytest.mark.parametrize("error", [KeyError("x"), CompassError("ours")])
def test_errors_that_are_not_of_ray_pass_as_they_are(error: Exception) -> None:
    assert raised(error) is error
