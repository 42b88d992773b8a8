"""Groups of worker processes as Ray Train starts them, without Ray: for what DeepSpeed does on several workers."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any


def run_group(function: Callable[..., Any], workers: int, *arguments: Any) -> list[Any]:
    """Run a function of a support module on every worker of a new group; what each has returned, by rank.

    It may return tensors, plain values, and lists, tuples and dicts of these.
    """
    import torch

    spawned = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        given = workers, folder, function, arguments
        processes = [spawned.Process(target=_worker, args=(rank, *given)) for rank in range(workers)]
        for process in processes:
            process.start()
        running = {process.sentinel: process for process in processes}
        try:
            while running:
                for sentinel in wait(list(running)):
                    process = running.pop(int(sentinel))  # type: ignore[call-overload]
                    process.join()
                    assert process.exitcode == 0, "what it says is in its stderr"
        finally:
            for process in running.values():  # they wait for the one that is gone
                process.terminate()
                process.join()
        return [torch.load(Path(folder, f"result-{rank}"), weights_only=True) for rank in range(workers)]


def _worker(rank: int, workers: int, folder: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(workers),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    import torch
    import torch.distributed as dist

    from compass_ray.adapt.training.engine import prepare_process

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=workers)
    prepare_process("cpu")
    torch.save(function(*arguments), Path(folder, f"result-{rank}"))
    dist.destroy_process_group()
