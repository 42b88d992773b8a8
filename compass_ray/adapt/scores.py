"""How well a model predicts held-out documents: loss, perplexity and bits per byte.

Bits per byte compares models with different tokenizers, and languages with each other: it is the loss of the whole
text, spread over its UTF-8 bytes and not over the tokens that a tokenizer happens to make.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Score:
    """Held-out score of one model on one language.

    Attributes
    ----------
    nats : float
        Sum of the negative log-likelihoods of all predicted tokens.
    tokens, n_bytes, documents : int
        Predicted tokens, the UTF-8 bytes they spell, and the documents they are from.
    """

    nats: float
    tokens: int
    n_bytes: int
    documents: int

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of a token in nats."""
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """``exp(loss)``; infinite where that is beyond a float."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float:
        """Bits that the model needs for a byte of the text."""
        return self.nats / math.log(2) / self.n_bytes

    def to_json(self) -> dict[str, Any]:
        """Convert all of it to plain JSON, with what follows from it."""
        derived = {"loss": self.loss, "perplexity": self.perplexity, "bits_per_byte": self.bits_per_byte}
        return {**asdict(self), **{name: round(value, 6) for name, value in derived.items() if math.isfinite(value)}}

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Score:
        """Undo :meth:`to_json`."""
        return cls(body["nats"], body["tokens"], body["n_bytes"], body["documents"])
