"""Tokenised parallel texts, and the batches drawn from them. A batch is a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TokenBags:
    """Texts as bags of token ids, in groups that say the same.

    Attributes
    ----------
    ids : ndarray of shape (n_tokens,), int32
        The tokens of all texts, one text after the other.
    starts : ndarray of shape (n_texts + 1,), int64
        Where each text starts in ``ids``. No text is empty.
    groups : ndarray of shape (n_groups + 1,), int64
        Where each group starts among the texts. Each has two texts or more.
    corpora : ndarray of shape (n_groups,), int32
        The corpus of each group.
    chance : ndarray of shape (n_texts,), float64
        How often a text is drawn, relative to the others of its group.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    groups: NDArray[np.int64]
    corpora: NDArray[np.int32]
    chance: NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """Two texts of each of some groups, with tokens dropped.

    Attributes
    ----------
    groups : ndarray of shape (b,), int64
    ids : pair of ndarray of shape (n_tokens,), int64
    offsets : pair of ndarray of shape (b,), int64
        Where each text starts in ``ids``, as ``torch.nn.EmbeddingBag`` takes it.
    """

    groups: NDArray[np.int64]
    ids: tuple[NDArray[np.int64], NDArray[np.int64]]
    offsets: tuple[NDArray[np.int64], NDArray[np.int64]]


class BatchSampler:
    """Draws batches: groups by corpus weight, then two texts of each, then the tokens that stay.

    Parameters
    ----------
    bags : TokenBags
    batch_groups : mapping of corpus number to int
        Groups of each corpus in a batch, drawn without replacement.
    dropout : float
        Fraction of tokens left out, 0 to 1; a text keeps at least one.
    seed : int
    """

    def __init__(self, bags: TokenBags, batch_groups: Mapping[int, int], dropout: float, seed: int) -> None:
        self._bags, self._dropout, self._seed = bags, dropout, seed
        members = {corpus: np.flatnonzero(bags.corpora == corpus) for corpus in batch_groups}
        self._parts = [(members[corpus], min(count, len(members[corpus]))) for corpus, count in batch_groups.items()]
        self._cumulative = np.concatenate([[0.0], np.cumsum(bags.chance)])

    def batch(self, step: int, rank: int = 0) -> Batch:
        """Draw the batch of a step; other ranks get other batches."""
        rng = np.random.default_rng([self._seed, step, rank])
        groups = np.concatenate([rng.choice(members, count, replace=False) for members, count in self._parts])
        first = self._texts(rng, groups)
        second = self._texts(rng, groups)
        same = np.flatnonzero(first == second)
        second[same] = self._texts(rng, groups[same], without=first[same])
        x, y = self._tokens(rng, first), self._tokens(rng, second)
        return Batch(groups, (x[0], y[0]), (x[1], y[1]))

    def _texts(
        self, rng: np.random.Generator, groups: NDArray[np.int64], without: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Draw one text of each group by chance, but not that in ``without``."""
        start, stop = self._bags.groups[groups], self._bags.groups[groups + 1]
        low, high = self._cumulative[start], self._cumulative[stop]
        if without is None:
            point = low + rng.random(len(groups)) * (high - low)
        else:
            left_out = self._bags.chance[without]
            point = low + rng.random(len(groups)) * (high - low - left_out)
            point += np.where(point >= self._cumulative[without], left_out, 0)
        drawn = np.searchsorted(self._cumulative, point, side="right") - 1
        return np.asarray(np.clip(drawn, start, stop - 1))

    def _tokens(
        self, rng: np.random.Generator, texts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        lengths = self._bags.starts[texts + 1] - self._bags.starts[texts]
        before = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        rows = np.repeat(np.arange(len(texts)), lengths)
        positions = np.arange(lengths.sum()) - before[rows] + self._bags.starts[texts][rows]
        kept = rng.random(len(positions)) >= self._dropout
        kept[before[np.bincount(rows[kept], minlength=len(texts)) == 0]] = True
        counts = np.bincount(rows[kept], minlength=len(texts))
        return self._bags.ids[positions[kept]].astype(np.int64), np.concatenate([[0], np.cumsum(counts)[:-1]])


def make_bags(
    ids: Sequence[NDArray[np.int32]],
    groups: NDArray[np.int64],
    corpora: NDArray[np.int32],
    chance: NDArray[np.float64],
) -> tuple[TokenBags, NDArray[np.int64]]:
    """Make bags of tokenised texts. Texts without a known token, and groups left with one text, fall out.

    Parameters
    ----------
    ids : sequence of ndarray
        Token ids of each text.
    groups, corpora : ndarray of shape (n_texts,)
        The group and the corpus of each text; groups in ascending order.
    chance : ndarray of shape (n_texts,), float64

    Returns
    -------
    bags : TokenBags
    groups : ndarray of shape (n_groups,), int64
        What ``groups`` calls each group of the bags.
    """
    kept = np.array([len(tokens) > 0 for tokens in ids])
    _, inverse, sizes = np.unique(groups[kept], return_inverse=True, return_counts=True)
    kept[np.flatnonzero(kept)[sizes[inverse] < 2]] = False
    numbers, first = np.unique(groups[kept], return_index=True)
    chosen = [tokens for tokens, keep in zip(ids, kept, strict=True) if keep]
    bags = TokenBags(
        ids=np.concatenate(chosen),
        starts=np.concatenate([[0], np.cumsum([len(tokens) for tokens in chosen])]),
        groups=np.concatenate([first, [len(chosen)]]),
        corpora=corpora[kept][first],
        chance=chance[kept],
    )
    return bags, numbers
