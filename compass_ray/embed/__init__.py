"""Texts -> unit vectors."""

from compass_ray.embed.encoder import Encoder, load_encoder

__all__ = ["Encoder", "load_encoder"]
