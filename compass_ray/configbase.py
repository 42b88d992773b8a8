"""What every config model shares: frozen, strict about unknown fields, and split into identity and execution.

A field is part of the *identity* of a stage, and so of its fingerprint, unless it is annotated with
:data:`EXECUTION`. The default is the safe side: a forgotten mark recomputes, it never reuses wrongly.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Execution:
    """Marks a field that decides where and how fast work is done, never what comes out."""


EXECUTION = Execution()


class Config(BaseModel):
    """Base of all config models."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def identity(config: BaseModel) -> dict[str, Any]:
    """The identity fields of a config as plain JSON, recursively."""
    values: dict[str, Any] = {}
    for name, info in type(config).model_fields.items():
        if EXECUTION in info.metadata:
            continue
        value = getattr(config, name)
        values[name] = identity(value) if isinstance(value, BaseModel) else config.model_dump(mode="json")[name]
    return values
