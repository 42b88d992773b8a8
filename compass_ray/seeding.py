"""Keyed hashing: randomness that belongs to a document, not to a process.

Every random decision about a document is a pure function of
``(doc_id, seed, purpose, target language)``. It is therefore the same on any worker, in any order,
after any restart, and decisions for different purposes are independent of each other.
Cost: about 20 ns a row, no state.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix by the finaliser of SplitMix64 (Steele, Lea & Flood, 2014). It is a bijection on 64 bits."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def _digest(seed: int, parts: tuple[str, ...], size: int) -> bytes:
    message = "\x1f".join((str(seed), *parts)).encode()
    return hashlib.blake2b(message, digest_size=size).digest()


def uniform(ids: NDArray[np.uint8], seed: int, purpose: str, target_lang: str = "") -> NDArray[np.float64]:
    """Draw a uniform number for each document.

    Parameters
    ----------
    ids : ndarray of shape (n, 16), uint8
        Document ids.
    seed : int
        The run's seed.
    purpose : str
        What the number decides (``"draw"``, ``"holdout"``, ...); purposes are independent.
    target_lang : str
        The target language the decision is made for, if it is made per target language.

    Returns
    -------
    ndarray of shape (n,), float64
        Values in the open interval (0, 1), so that logarithms are finite.
    """
    words = np.ascontiguousarray(ids).view("<u8").reshape(-1, 2)
    key = np.frombuffer(_digest(seed, (purpose, target_lang), 16), dtype="<u8")
    mixed = _mix(_mix(words[:, 0] ^ key[0]) ^ words[:, 1] ^ key[1])
    return ((mixed >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def gumbel(ids: NDArray[np.uint8], seed: int, purpose: str, target_lang: str = "") -> NDArray[np.float64]:
    """Draw standard Gumbel noise per document.

    The top-k of ``log w + gumbel`` is a weighted sample of size k without replacement (Efraimidis & Spirakis, 2006).
    """
    return -np.log(-np.log(uniform(ids, seed, purpose, target_lang)))


def exponential(ids: NDArray[np.uint8], seed: int, purpose: str) -> NDArray[np.float64]:
    """Draw standard exponential noise per document. ``argmin(noise / w)`` draws one with probability ∝ w."""
    return -np.log(uniform(ids, seed, purpose))


def child_seed(seed: int, *names: str) -> int:
    """Derive a 64-bit seed for a NumPy generator. It follows from the run's seed and a name."""
    return int.from_bytes(_digest(seed, names, 8), "little")
