"""Where adapter versions are kept: ``registry`` in the config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from compass_ray import storage
from compass_ray.configbase import EXECUTION, Config


class RegistryConfig(Config):
    """The registry that ``adapt`` writes to."""

    path: Annotated[str | None, EXECUTION] = Field(
        default=None, description="Folder of the registry, local or s3://; <output>/registry if not given"
    )
    store_text: Annotated[Literal[True, "ids"], EXECUTION] = Field(
        default=True, description="Replay rows of a version with their text, or as ids alone"
    )

    @field_validator("path")
    @classmethod
    def _writable(cls, value: str | None) -> str | None:
        if value is not None:
            storage.refuse_read_only(value)
        return value
