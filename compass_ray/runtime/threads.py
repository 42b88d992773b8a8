"""CPU threads of a worker process."""

from __future__ import annotations

import os
import sys
from typing import Any

import threadpoolctl


def set_threads(threads: int) -> None:
    """Fix the threads that BLAS, OpenMP, torch and tokenizers use in this process.

    A matrix product may have other last bits with another number of threads, so the number is part of
    a stage's identity and never left to the machine. Call it after the libraries are loaded.
    """
    threadpoolctl.threadpool_limits(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"  # asked at every call
    os.environ["RAYON_NUM_THREADS"] = str(threads)  # asked at the first parallel one
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
