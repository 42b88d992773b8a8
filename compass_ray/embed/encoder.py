"""The ``Encoder`` protocol: what turns texts into vectors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Input = str | NDArray[np.int32]
"""A text, or its token ids where an encoder needs no more of it."""


class Tokenized(NamedTuple):
    """Texts as an encoder takes them.

    Attributes
    ----------
    counts : ndarray of shape (n,), int32
        Tokens of each text before truncation and without the prompt; token budgets are measured by it.
    inputs : sequence of n
        What :meth:`Encoder.encode` takes in place of the texts, so that no text is tokenised twice.
    cut : int
        Texts whose end is not read, for they have more tokens than the encoder takes.
    unknown : ndarray of shape (n,), bool, or None
        Texts most of whose tokens the encoder does not know, so that their vectors are much alike; None for an encoder
        that knows all, or does not tell.
    """

    counts: NDArray[np.int32]
    inputs: Sequence[Input]
    cut: int = 0
    unknown: NDArray[np.bool_] | None = None

    def sizes(self) -> NDArray[np.int32]:
        """Count the tokens that each input takes of a batch.

        They are its ids, cut and with the prompt, or its count if it is a text.
        """
        pairs = zip(self.counts, self.inputs, strict=True)
        return np.array([count if isinstance(one, str) else len(one) for count, one in pairs], dtype=np.int32)


def ids_of(
    inputs: Sequence[Input], tokenize: Callable[[list[str]], list[NDArray[np.int32]]]
) -> list[NDArray[np.int32]]:
    """Take token ids as they are, and texts by their tokens; the inputs of a batch are all of one kind."""
    texts = [one for one in inputs if isinstance(one, str)]
    return tokenize(texts) if texts else [one for one in inputs if not isinstance(one, str)]


def mostly_unknown(
    ids: Sequence[NDArray[np.int32]], unknown: int | None, silent: Collection[int]
) -> NDArray[np.bool_] | None:
    """Tell texts more than half of whose tokens are unknown.

    Parameters
    ----------
    ids : sequence of ndarray
        Tokens of each text.
    unknown : int or None
        The token that stands for what a tokenizer does not know, if it has one.
    silent : collection of int
        Tokens that say nothing and are not counted, as those of begin, end and space.
    """
    if unknown is None:
        return None
    rows = np.repeat(np.arange(len(ids)), [len(one) for one in ids])
    tokens = np.concatenate([*ids, np.empty(0, dtype=np.int32)])
    said = np.bincount(rows[~np.isin(tokens, list(silent))], minlength=len(ids))
    return np.asarray(2 * np.bincount(rows[tokens == unknown], minlength=len(ids)) > said)


class Encoder(Protocol):
    """Turns texts into unit vectors."""

    dim: int
    """Length of a vector."""

    revision: str
    """What the vectors are a function of, beside text and prompt: weights, tokenizer, parameters."""

    prompt: str
    """Prefix of every text."""

    weights_bytes: int
    """Memory that the weights take in every actor."""

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        """Count the tokens of texts, and keep of the work what encoding can use."""

    def encode(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        """Encode texts, or what :meth:`tokenize` made of them. The vectors are of shape (n, dim), L2-normalised.

        They are one batch; a row may differ in its last bits in another batch. A text that
        carries no signal (empty, only unknown symbols) gets the first unit vector.
        """

    def encode_exactly(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        """Encode as :meth:`encode` does, in float32 whatever the model's dtype.

        It is the second try for a row that overflowed.
        """
