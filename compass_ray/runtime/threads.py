"""CPU threads of a worker process."""

from __future__ import annotations

import sys
from typing import Any

import threadpoolctl


def set_threads(threads: int) -> None:
    """Fix the threads that BLAS, OpenMP and torch use in this process.

    A matrix product may have other last bits with another number of threads, so the number is part of
    a stage's identity and never left to the machine. Call it after the libraries are loaded.
    """
    threadpoolctl.threadpool_limits(threads)
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
