"""Texts -> unit vectors."""

from compass_ray.embed.encoder import Encoder
from compass_ray.embed.kinds import load_encoder

__all__ = ["Encoder", "load_encoder"]
