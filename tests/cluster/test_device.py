"""Where centroids are compared: what is chosen, what is refused, and that a GPU assigns as a CPU does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compass_ray.cluster import device, kernels
from compass_ray.cluster.device import device_for, nearest_on
from compass_ray.errors import ResourcesMissing
from compass_ray.vectors import unit_rows


def never() -> float:
    raise AssertionError("the cluster was asked though the answer does not matter")


@pytest.fixture
def faiss_with_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_faiss_uses_gpus", lambda: True)


def test_cpu_asks_nobody() -> None:
    assert device_for("cpu", never) == "cpu"


def test_auto_takes_gpus_where_the_cluster_has_some(faiss_with_gpus: None) -> None:
    assert device_for("auto", lambda: 2) == "gpu"
    assert device_for("auto", lambda: 0) == "cpu"
    assert device_for("gpu", lambda: 1) == "gpu"


def test_gpus_asked_for_but_absent_from_the_cluster_are_an_error(faiss_with_gpus: None) -> None:
    with pytest.raises(ResourcesMissing, match=r"cluster\.device: gpu was asked for, but the Ray cluster has no GPU"):
        device_for("gpu", lambda: 0)


@pytest.mark.skipif(device._faiss_uses_gpus(), reason="the installed faiss uses GPUs")
def test_a_faiss_without_gpus_means_cpu_or_an_error_that_names_the_extra() -> None:
    assert device_for("auto", never) == "cpu"
    with pytest.raises(ResourcesMissing) as caught:
        device_for("gpu", never)
    assert str(caught.value) == (
        "cluster.device: gpu needs a faiss with GPU support, and none is installed; `pip uninstall faiss-cpu`, then "
        "`pip install 'compass_ray[gpu]'`, on all nodes, or set it to cpu"
    )
    assert caught.value.exit_code == 4


def rows(count: int, features: int, seed: int) -> Any:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, features)))


def assert_same_but_for_near_ties(x: Any, centroids: Any) -> None:
    labels, similarity = nearest_on("gpu")(x, centroids)
    expected, best = nearest_on("cpu")(x, centroids)
    assert (labels.dtype, similarity.dtype, labels.shape) == (np.int32, np.float32, (len(x),))
    assert similarity == pytest.approx(best, abs=1e-5)
    differing = np.flatnonzero(labels != expected)
    assert len(differing) <= len(x) // 1000
    chosen = np.einsum("ij,ij->i", x[differing], centroids[labels[differing]])
    assert chosen == pytest.approx(best[differing], abs=1e-5)


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_pieces_are_put_together_as_one_search(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """faiss's own exact search on CPUs stands in for the one on GPUs, which takes and returns the same."""
    import faiss

    def knn(memory: None, x: Any, centroids: Any, k: int, metric: int) -> Any:
        assert len(x) <= 1000
        return faiss.knn(x, centroids, k, metric=metric)

    monkeypatch.setattr(faiss, "knn_gpu", knn, raising=False)
    monkeypatch.setattr(device, "_gpu_memory", lambda: None)
    monkeypatch.setattr(device, "_GPU_ROWS", 1000)
    assert_same_but_for_near_ties(rows(count, 32, 0), rows(20, 32, 1))


@pytest.mark.gpu
@pytest.mark.skipif(not device._faiss_uses_gpus(), reason="needs the extra 'gpu' in the place of 'cpu'")
def test_a_gpu_assigns_as_a_cpu_does_but_for_near_ties() -> None:
    assert_same_but_for_near_ties(rows(200_000, 384, 0), rows(1000, 384, 1))
    clustered = rows(50_000, 64, 2)
    assert_same_but_for_near_ties(clustered, clustered[:200])
    assert kernels.nearest is nearest_on("cpu")
