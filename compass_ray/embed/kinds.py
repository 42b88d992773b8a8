"""The kinds of encoders that ``embed.model`` names, a row each, and the one function that loads one.

A further kind is a module with its encoder, and a row here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compass_ray.embed.config import EmbedConfig
    from compass_ray.embed.encoder import Encoder


@dataclass(frozen=True)
class Kind:
    """How encoders of one kind are found, named and loaded. Libraries are imported when they are needed.

    Attributes
    ----------
    unread : sequence of str
        Fields of ``embed`` that say nothing to it, and are refused.
    weights : str
        The files that must be in a model's folder, as a pattern.
    """

    unread: Sequence[str] = ()
    weights: str = "*.safetensors"

    def folder(self, config: EmbedConfig, *, fetch: bool = True) -> Path | None:
        """Find the model's folder; None for an encoder without files. Only with ``fetch`` is it downloaded.

        Raises
        ------
        ConfigError
            If the model cannot be found, is not pinned, or holds pickled weights.
        ResourcesMissing
            If a package is missing that the encoder needs, or the hub cannot be reached.
        """
        return None

    def revision(self, config: EmbedConfig) -> str:
        """Name all that vectors are a function of, beside text and prompt."""
        raise NotImplementedError

    def prompt(self, config: EmbedConfig) -> str:
        """Find the prefix of every text."""
        return config.prompt or ""

    def load(self, config: EmbedConfig) -> Encoder:
        """Load the encoder."""
        raise NotImplementedError


class Hashing(Kind):
    """Hashed character n-grams, without a model."""

    def revision(self, config: EmbedConfig) -> str:
        from compass_ray.embed.hashing import HashingEncoder

        return HashingEncoder.revision

    def load(self, config: EmbedConfig) -> Encoder:
        from compass_ray.embed.hashing import HashingEncoder

        return HashingEncoder(self.prompt(config))


class Base(Kind):
    """Hidden states of a causal language model."""

    def folder(self, config: EmbedConfig, *, fetch: bool = True) -> Path:
        from compass_ray.embed.base import base_folder

        return base_folder(config.base, config.revision, fetch=fetch)

    def revision(self, config: EmbedConfig) -> str:
        from compass_ray.embed.base import base_revision

        return base_revision(self.folder(config), config.max_tokens)

    def load(self, config: EmbedConfig) -> Encoder:
        from compass_ray.embed.base import BaseEncoder

        return BaseEncoder(
            self.folder(config),
            max_tokens=config.max_tokens,
            prompt=self.prompt(config),
            dtype=config.dtype,
            device=config.device,
        )


class Usem3(Kind):
    """The Universal Sentence Encoder of 16 languages."""

    def folder(self, config: EmbedConfig, *, fetch: bool = True) -> Path:
        from compass_ray.embed.usem3 import usem3_folder

        return usem3_folder()

    def revision(self, config: EmbedConfig) -> str:
        from compass_ray.embed.usem3 import usem3_revision

        return usem3_revision(self.folder(config), config.max_tokens)

    def load(self, config: EmbedConfig) -> Encoder:
        from compass_ray.embed.usem3 import Usem3Encoder

        return Usem3Encoder(
            self.folder(config), max_tokens=config.max_tokens, prompt=self.prompt(config), device=config.device
        )


class SentenceTransformer(Kind):
    """Any sentence-transformers model; ``bundled`` is one."""

    def folder(self, config: EmbedConfig, *, fetch: bool = True) -> Path:
        from compass_ray.embed.sentence_transformer import model_folder

        return model_folder(config.model, config.revision, names=tuple(KINDS), fetch=fetch)

    def revision(self, config: EmbedConfig) -> str:
        from compass_ray.embed.sentence_transformer import model_revision

        return model_revision(self.folder(config), config.max_tokens, config.truncate_dim)

    def prompt(self, config: EmbedConfig) -> str:
        from compass_ray.embed.sentence_transformer import model_prompt

        return model_prompt(self.folder(config), config.prompt, config.prompt_name)

    def load(self, config: EmbedConfig) -> Encoder:
        from compass_ray.embed.sentence_transformer import SentenceTransformerEncoder

        return SentenceTransformerEncoder(
            self.folder(config),
            prompt=self.prompt(config),
            max_tokens=config.max_tokens,
            truncate_dim=config.truncate_dim,
            dtype=config.dtype,
            device=config.device,
        )


_OF_SENTENCE_TRANSFORMERS = ("truncate_dim", "prompt_name")

KINDS: dict[str, Kind] = {
    "bundled": SentenceTransformer(unread=("base",)),
    "base": Base(unread=_OF_SENTENCE_TRANSFORMERS),
    "hashing": Hashing(unread=("base", "max_tokens", *_OF_SENTENCE_TRANSFORMERS)),
    "usem3": Usem3(unread=("base", "revision", *_OF_SENTENCE_TRANSFORMERS), weights="*.npz"),
}
"""By what ``embed.model`` says. All else is the folder of a sentence-transformers model, or a hub id."""


def kind_of(model: str) -> Kind:
    """Look up what kind of encoder ``embed.model`` names."""
    return KINDS.get(model, KINDS["bundled"])


def load_encoder(model: str = "bundled", **fields: Any) -> Encoder:
    """Load an encoder by name.

    Parameters
    ----------
    model : str
        A key of :data:`KINDS`, the folder of a sentence-transformers model, or a hub id.
    **fields
        Of ``embed`` in a config: ``revision``, ``prompt``, ``dtype``, ``max_tokens`` and others.

    Raises
    ------
    ConfigError
        If the model cannot be found, is not pinned, holds pickled weights, or has no such prompt, so many dimensions
        or so many positions.
    ResourcesMissing
        If a package is missing that the encoder needs, or the hub cannot be reached.
    """
    from compass_ray.embed.config import EmbedConfig

    return encoder_from(EmbedConfig(model=model, **fields))


def encoder_from(config: EmbedConfig) -> Encoder:
    """Load the encoder that a config asks for; see :func:`load_encoder`."""
    return kind_of(config.model).load(config)
