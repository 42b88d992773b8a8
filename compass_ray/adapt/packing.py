"""Many examples -> packs: rows of at most ``max_length`` tokens that hold whole documents.

Position ids restart in every document. transformers reads document borders from that (``create_causal_mask``), so no
token sees another document, under three conditions: no attention mask is given, no cache is used, and the attention is
one that takes a mask (eager, sdpa, flex); flash attention reads borders in batches of one row only. Padding needs no
mask either: its positions are all 0, so each of its tokens is a document of its own. They do not count up, because
LongRoPE (Phi) picks its frequencies by the highest position in the batch, which padding must not raise.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from compass_ray.adapt.examples import Example

if TYPE_CHECKING:
    import pyarrow as pa

Scalar = TypeVar("Scalar", bound=np.generic)

IGNORED = -100
"""The target that the cross entropy of torch leaves out."""


def best_fit_decreasing(lengths: NDArray[np.int64], capacity: int) -> list[NDArray[np.int64]]:
    """Pack lengths into few bins: the longest first, each into the fullest bin that still has room for it.

    Uses at most 11/9 of the fewest bins possible, plus 4 (Johnson, Demers, Ullman, Garey and Graham 1974, "Worst-case
    performance bounds for simple one-dimensional packing algorithms", SIAM J. Comput. 3(4)). Ties go to the lower
    index and the lower bin, so the outcome is a function of the lengths.

    Parameters
    ----------
    lengths : ndarray of shape (n,), int64
        Each at least 1 and at most ``capacity``.

    Returns
    -------
    list of ndarray of int64
        Indices in each bin, in the order in which they were put there.

    Notes
    -----
    Bins are kept by the room they have left: O(log n) for each length, plus a shift of at most ``capacity`` distinct
    rooms in one list. A million lengths take about 1 s.
    """
    lengths = np.asarray(lengths, dtype=np.int64)
    _check_lengths(lengths, capacity)
    order = np.argsort(-lengths, kind="stable")
    chosen = np.empty(len(lengths), dtype=np.int64)
    rooms: list[int] = []  # the different amounts of room that bins have left, ascending
    bins: dict[int, list[int]] = {}  # room -> heap of the bins that have it
    n_bins = 0
    for place, length in enumerate(lengths[order].tolist()):
        found = bisect_left(rooms, length)
        if found == len(rooms):
            room, number = capacity, n_bins
            n_bins += 1
        else:
            room = rooms[found]
            number = heappop(bins[room])
            if not bins[room]:
                del rooms[found], bins[room]
        chosen[place] = number
        left = room - length
        if left in bins:
            heappush(bins[left], number)
        elif left:
            bins[left] = [number]
            insort(rooms, left)
    members = order[np.argsort(chosen, kind="stable")]
    starts = _starts(np.bincount(chosen, minlength=n_bins)).tolist()
    return [members[start:stop] for start, stop in pairwise(starts)]


@dataclass(frozen=True, eq=False)
class Packs:
    """All packs, flat: pack p holds ``tokens[starts[p]:starts[p + 1]]`` and the documents
    ``documents[document_starts[p]:document_starts[p + 1]]``, in that order.
    """

    tokens: NDArray[np.int32]  # (n_tokens,)
    targets: NDArray[np.int32]  # (n_tokens,) the token after this one, if it is trained; else IGNORED
    positions: NDArray[np.int32]  # (n_tokens,) from 0 in every document
    starts: NDArray[np.int64]  # (n_packs + 1,)
    documents: NDArray[np.int64]  # (n_documents,) indices of the examples
    document_starts: NDArray[np.int64]  # (n_packs + 1,)
    trained: NDArray[np.int64]  # (n_packs,) targets that are not IGNORED
    n_bytes: NDArray[np.int64]  # (n_packs,) bytes that the trained tokens spell

    def __len__(self) -> int:
        return len(self.trained)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of every pack, shape (n_packs,)."""
        return np.diff(self.starts)

    def documents_of(self, pack: int) -> NDArray[np.int64]:
        """List the indices of the examples in a pack, in order."""
        return self.documents[self.document_starts[pack] : self.document_starts[pack + 1]]

    def to_table(self) -> pa.Table:
        """Make a table of one row a pack.

        Columns: tokens, targets, positions (list<int32>), documents (list<int64>), trained, bytes (int64).
        """
        import pyarrow as pa

        def ragged(values: NDArray[np.generic], starts: NDArray[np.int64]) -> pa.ListArray:
            return pa.ListArray.from_arrays(pa.array(starts, type=pa.int32()), pa.array(values))

        return pa.table(
            {
                "tokens": ragged(self.tokens, self.starts),
                "targets": ragged(self.targets, self.starts),
                "positions": ragged(self.positions, self.starts),
                "documents": ragged(self.documents, self.document_starts),
                "trained": self.trained,
                "bytes": self.n_bytes,
            }
        )

    @classmethod
    def from_table(cls, table: pa.Table) -> Packs:
        """Undo :meth:`to_table`. Rows may have been dropped or reordered since."""
        columns = {name: table[name].combine_chunks() for name in table.column_names}

        def flat(name: str) -> NDArray[np.generic]:
            values: NDArray[np.generic] = columns[name].flatten().to_numpy()
            return values

        return cls(
            tokens=flat("tokens").astype(np.int32, copy=False),
            targets=flat("targets").astype(np.int32, copy=False),
            positions=flat("positions").astype(np.int32, copy=False),
            starts=_starts(columns["tokens"].value_lengths().to_numpy()),
            documents=flat("documents").astype(np.int64, copy=False),
            document_starts=_starts(columns["documents"].value_lengths().to_numpy()),
            trained=columns["trained"].to_numpy(),
            n_bytes=columns["bytes"].to_numpy(),
        )


def make_packs(examples: Sequence[Example], max_length: int, packing: bool = True) -> Packs:
    """Pack examples of 1 to ``max_length`` tokens; one in each pack, in their order, without ``packing``."""
    lengths = np.array([len(example.tokens) for example in examples], dtype=np.int64)
    _check_lengths(lengths, max_length)
    bins = best_fit_decreasing(lengths, max_length) if packing else list(np.arange(len(lengths))[:, None])
    documents = _joined(bins, np.int64)
    document_starts = _starts(np.array([len(members) for members in bins], dtype=np.int64))
    begins = _starts(lengths[documents])  # of documents, and the end of the last one
    tokens = _joined([examples[i].tokens for i in documents], np.int32)
    trained = _joined([examples[i].trained for i in documents], np.bool_)
    trained[begins[:-1]] = False  # the token before belongs to another document
    targets = np.full(len(tokens), IGNORED, dtype=np.int32)
    targets[:-1] = np.where(trained[1:], tokens[1:], IGNORED)
    starts = begins[document_starts]
    n_bytes = np.array([examples[i].n_bytes for i in documents], dtype=np.int64)
    return Packs(
        tokens=tokens,
        targets=targets,
        positions=(np.arange(len(tokens)) - np.repeat(begins[:-1], np.diff(begins))).astype(np.int32),
        starts=starts,
        documents=documents,
        document_starts=document_starts,
        trained=np.diff(_starts(trained)[starts]),
        n_bytes=np.diff(_starts(n_bytes)[document_starts]),
    )


def joined(parts: Sequence[Packs]) -> Packs:
    """Put packs one after another; ``documents`` number those of all parts alike."""
    return Packs(
        tokens=_joined([part.tokens for part in parts], np.int32),
        targets=_joined([part.targets for part in parts], np.int32),
        positions=_joined([part.positions for part in parts], np.int32),
        starts=_starts(_joined([np.diff(part.starts) for part in parts], np.int64)),
        documents=_joined([part.documents for part in parts], np.int64),
        document_starts=_starts(_joined([np.diff(part.document_starts) for part in parts], np.int64)),
        trained=_joined([part.trained for part in parts], np.int64),
        n_bytes=_joined([part.n_bytes for part in parts], np.int64),
    )


def batch(packs: Packs, numbers: Sequence[int], pad_token: int, multiple: int = 8) -> dict[str, NDArray[np.int64]]:
    """Lay some packs side by side, padded at the end to the longest.

    The length is a multiple of ``multiple`` (tensor cores).

    Parameters
    ----------
    numbers
        Which packs; -1 stands for an empty one, for a worker that has run out of packs before the others.

    Returns
    -------
    dict of ndarray of shape (len(numbers), padded length), int64
        ``input_ids``, ``targets`` and ``position_ids``. ``targets`` are already shifted.
    """
    spans = [(packs.starts[number], packs.starts[number + 1]) if number >= 0 else (0, 0) for number in numbers]
    longest = max((int(stop - start) for start, stop in spans), default=0)
    shape = len(numbers), max(1, -(-longest // multiple)) * multiple
    rows = {
        "input_ids": np.full(shape, pad_token, dtype=np.int64),
        "targets": np.full(shape, IGNORED, dtype=np.int64),
        "position_ids": np.zeros(shape, dtype=np.int64),
    }
    for row, (start, stop) in enumerate(spans):
        inside = slice(stop - start)
        rows["input_ids"][row, inside] = packs.tokens[start:stop]
        rows["targets"][row, inside] = packs.targets[start:stop]
        rows["position_ids"][row, inside] = packs.positions[start:stop]
    return rows


def _check_lengths(lengths: NDArray[np.int64], capacity: int) -> None:
    if len(lengths) and not 1 <= lengths.min() <= lengths.max() <= capacity:
        raise ValueError(f"expected lengths from 1 to {capacity}, found {lengths.min()} to {lengths.max()}")


def _starts(sizes: NDArray[np.generic]) -> NDArray[np.int64]:
    """Find where each of n consecutive parts begins, and the end. The shape is (n + 1,)."""
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))


def _joined(parts: Sequence[NDArray[Any]], dtype: type[Scalar]) -> NDArray[Scalar]:
    """Join parts one after another; none are an empty array."""
    return np.concatenate([np.empty(0, dtype), *parts], dtype=dtype)
