"""What every kind of encoder can do, and the one function that loads one. Which there are stands in ``traits.py``."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.encoder import Encoder
from compass_ray.embed.traits import traits_of


class Kind:
    """How encoders of one kind are found, named and loaded."""

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


def kind_of(model: str) -> Kind:
    """Load the kind of encoder that ``embed.model`` names."""
    found: type[Kind] = resolve_name(traits_of(model).kind)
    return found()


def load_encoder(model: str = "bundled", **fields: Any) -> Encoder:
    """Load an encoder by name.

    Parameters
    ----------
    model : str
        A key of :data:`compass_ray.embed.traits.ENCODERS`, the folder of a sentence-transformers model, or a hub id.
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
    return encoder_from(EmbedConfig(model=model, **fields))


def encoder_from(config: EmbedConfig) -> Encoder:
    """Load the encoder that a config asks for; see :func:`load_encoder`."""
    return kind_of(config.model).load(config)
