"""Where nearest centroids are looked for: on CPUs by one kernel, on GPUs by faiss."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compass_ray.cluster import kernels
from compass_ray.errors import ResourcesMissing

Device = Literal["cpu", "gpu"]
Nearest = Callable[[NDArray[np.float32], NDArray[np.float32]], tuple[NDArray[np.int32], NDArray[np.float32]]]
"""As :func:`compass_ray.cluster.kernels.nearest`."""

TASK_GPUS = 0.25
"""Share of a GPU that the task of one shard asks for: reading and writing take most of its time."""
_GPU_ROWS = 65536
"""Rows that are sent to a GPU at once."""


def device_for(asked: Literal["auto", "cpu", "gpu"], gpus: Callable[[], float]) -> Device:
    """Decide where to run.

    Parameters
    ----------
    asked : {"auto", "cpu", "gpu"}
        ``auto`` takes GPUs where the cluster has some and the installed faiss can use them.
    gpus : callable
        How many the cluster has; called only if the answer matters.

    Raises
    ------
    ResourcesMissing
        If GPUs are asked for and there are none, or faiss cannot use them.
    """
    if asked == "cpu":
        return "cpu"
    if not _faiss_uses_gpus():
        if asked == "auto":
            return "cpu"
        raise ResourcesMissing(
            "cluster.device: gpu needs a faiss with GPU support, and none is installed; "
            "`pip uninstall faiss-cpu`, then `pip install 'compass_ray[gpu]'`, on all nodes, or set it to cpu"
        )
    if gpus() >= 1:
        return "gpu"
    if asked == "auto":
        return "cpu"
    raise ResourcesMissing(
        "cluster.device: gpu was asked for, but the Ray cluster has no GPU; join one that has, or set it to cpu"
    )


def _faiss_uses_gpus() -> bool:
    """Tell whether faiss is the build of the extra ``gpu``. Both extras install the same module name."""
    if find_spec("faiss") is None:
        return False
    import faiss

    return hasattr(faiss, "StandardGpuResources")


def nearest_on(device: Device) -> Nearest:
    """Choose the search for a device.

    Assignments on a GPU may differ from a CPU's where two centroids are equally near.
    """
    return kernels.nearest if device == "cpu" else _nearest_by_faiss


def _nearest_by_faiss(
    x: NDArray[np.float32], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    import faiss

    labels = np.empty(len(x), dtype=np.int32)
    similarity = np.empty(len(x), dtype=np.float32)
    for start in range(0, len(x), _GPU_ROWS):
        part = slice(start, start + _GPU_ROWS)
        products, found = faiss.knn_gpu(
            _gpu_memory(), np.ascontiguousarray(x[part]), centroids, 1, metric=faiss.METRIC_INNER_PRODUCT
        )
        labels[part] = found[:, 0]
        similarity[part] = np.minimum(products[:, 0], 1.0)
    return labels, similarity


@cache
def _gpu_memory() -> Any:
    """Allocate scratch memory of faiss on this process's GPU, once."""
    import faiss

    return faiss.StandardGpuResources()
