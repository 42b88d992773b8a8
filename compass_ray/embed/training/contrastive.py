"""What a static encoder learns from: translations close, everything else in the batch far.

InfoNCE over in-batch negatives in both directions (van den Oord et al., 2018). An optional teacher, an encoder of
the pivot language, is one more "translation" of each group through a learnt projection, so that texts about similar
things come close too; and it gives every piece its first vector: the mean of the texts that hold it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from torch import Tensor, nn

from compass_ray.embed.training.bags import Batch, TokenBags
from compass_ray.vectors import scaled_rows

_PRIOR_COUNT = 2.0
"""Imagined texts without meaning that each piece starts with: a rare piece starts near zero."""


class StaticTable(nn.Module):  # type: ignore[misc]
    """A vector for each piece, and what ties them to the teacher.

    Parameters
    ----------
    pieces : ndarray of shape (n_pieces, d), float32
        First vectors.
    projection : ndarray of shape (d_teacher, d), float32, optional
        First projection of the teacher's vectors.
    """

    def __init__(self, pieces: NDArray[np.float32], projection: NDArray[np.float32] | None) -> None:
        super().__init__()
        self.pieces = nn.EmbeddingBag.from_pretrained(torch.from_numpy(pieces), freeze=False, mode="mean")
        self.projection = None if projection is None else nn.Parameter(torch.from_numpy(projection))

    def forward(
        self, ids: tuple[Tensor, Tensor], offsets: tuple[Tensor, Tensor], teacher: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Compute unit vectors of both texts of each group, and of its teacher."""
        x, y = (functional.normalize(self.pieces(i, o), dim=1) for i, o in zip(ids, offsets, strict=True))
        target = None
        if teacher is not None and self.projection is not None:
            target = functional.normalize(teacher @ self.projection, dim=1)
        return x, y, target


def batch_loss(model: nn.Module, batch: Batch, teacher: Tensor | None, scale: float, teacher_weight: float) -> Tensor:
    """Compute the loss of one batch.

    Parameters
    ----------
    model : StaticTable, or one wrapped for several workers
    batch : Batch
    teacher : Tensor of shape (n_groups, d_teacher), optional
        Centred vectors of all groups; zero where a group has no text in the teacher's language.
    scale : float
        Inverse temperature.
    teacher_weight : float
        Weight of the teacher's terms beside the translations' one.
    """
    known = None
    targets = None
    if teacher is not None:
        rows = teacher[torch.from_numpy(batch.groups)]
        known = rows.abs().amax(dim=1) > 0
        targets = rows[known]
    ids = (torch.from_numpy(batch.ids[0]), torch.from_numpy(batch.ids[1]))
    offsets = (torch.from_numpy(batch.offsets[0]), torch.from_numpy(batch.offsets[1]))
    x, y, target = model(ids, offsets, targets)
    loss = info_nce(x, y, scale)
    if target is not None and len(target):
        loss = loss + teacher_weight / 2 * (info_nce(x[known], target, scale) + info_nce(y[known], target, scale))
    elif target is not None:
        loss = loss + target.sum()  # nothing, but other workers wait for the projection's gradient
    return loss


def info_nce(x: Tensor, y: Tensor, scale: float) -> Tensor:
    """Compute the mean cross-entropy of finding rows of ``y`` by rows of ``x``.

    Row i is found by row i among all rows, and the other way round.

    Parameters
    ----------
    x, y : Tensor of shape (b, d)
        Unit rows.
    scale : float
        Inverse temperature.
    """
    similarity = scale * x @ y.T
    labels = torch.arange(len(x))
    return (functional.cross_entropy(similarity, labels) + functional.cross_entropy(similarity.T, labels)) / 2


def principal_projection(teacher: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Find the first principal axes of the teacher's known vectors. The shape is (d_teacher, dim)."""
    known = teacher[np.abs(teacher).max(axis=1) > 0].astype(np.float64)
    _, axes = np.linalg.eigh(known.T @ known)
    return np.ascontiguousarray(axes[:, ::-1][:, :dim], dtype=np.float32)


def first_vectors(
    bags: TokenBags,
    n_pieces: int,
    dim: int,
    scale: float,
    noise: float,
    seed: int,
    teacher: NDArray[np.float32] | None,
    projection: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """Make the first vectors of pieces.

    They are noise, and ``scale`` times the mean of the projected teacher over the texts that hold a piece.

    The larger the scale, the less the optimiser's steps of about equal length turn the vectors away from the teacher.
    The noise is more than a start: pieces that training hardly sees keep it, and so still tell texts apart that
    share them, such as names.
    """
    rng = np.random.default_rng([seed, n_pieces])
    vectors = rng.normal(0.0, noise, size=(n_pieces, dim)).astype(np.float32)
    if teacher is None or projection is None:
        return vectors
    meaning = scaled_rows(teacher @ projection)
    group_of_text = np.repeat(np.arange(len(bags.corpora)), np.diff(bags.groups))
    group_of_token = np.repeat(group_of_text, np.diff(bags.starts))
    known = np.any(meaning != 0, axis=1)[group_of_token]
    counts = np.bincount(bags.ids[known], minlength=n_pieces)
    from scipy.sparse import csr_array

    cells = (np.ones(int(known.sum()), dtype=np.float32), (bags.ids[known], group_of_token[known]))
    occurrences = csr_array(cells, shape=(n_pieces, len(bags.corpora)))
    vectors += scale * (occurrences @ meaning) / (counts + _PRIOR_COUNT)[:, None].astype(np.float32)
    return vectors
