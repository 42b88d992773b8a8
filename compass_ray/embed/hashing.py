"""Hashed character n-grams: an encoder without weights.

It sees shared substrings, so it groups texts of one language and topic; it does not see that two
languages say the same. Feature hashing after Weinberger et al. (2009), signed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer

from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.encoder import Encoder, Input, Tokenized
from compass_ray.embed.kinds import Kind
from compass_ray.vectors import unit_rows


class HashingEncoder:
    """Signed hashing of 3- to 5-grams inside words, with sublinear counts.

    Cost: about 20,000 texts of 64 characters a second on one core. Deterministic everywhere: integer hashes
    and exact small sums.
    """

    dim = 512
    revision = "hashing-char_wb-3-5-512-sqrt"
    weights_bytes = 0

    def __init__(self, prompt: str = "") -> None:
        self.prompt = prompt
        self._vectorizer = HashingVectorizer(
            analyzer="char_wb", ngram_range=(3, 5), n_features=self.dim, norm=None, dtype=np.float64
        )

    def tokenize(self, texts: Sequence[str]) -> Tokenized:
        """Take four UTF-8 bytes as a token."""
        return Tokenized(np.array([-(-len(text.encode()) // 4) for text in texts], dtype=np.int32), texts)

    def encode(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        if not inputs:
            return np.empty((0, self.dim), dtype=np.float32)
        counts = self._vectorizer.transform(f"{self.prompt}{text}" for text in inputs).toarray()
        return unit_rows(np.sign(counts) * np.sqrt(np.abs(counts)))

    def encode_exactly(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        return self.encode(inputs)


class Hashing(Kind):
    """Hashed character n-grams, without a model."""

    def revision(self, config: EmbedConfig) -> str:
        return HashingEncoder.revision

    def load(self, config: EmbedConfig) -> Encoder:
        return HashingEncoder(self.prompt(config))
