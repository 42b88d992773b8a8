"""What every config model shares: frozen, strict about unknown fields, and split into identity and execution.

A field is part of the *identity* of a stage, and so of its fingerprint, unless it is annotated with
:data:`EXECUTION`. The default is the safe side: a forgotten mark recomputes, it never reuses wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema


class Execution:
    """Marks a field that decides where and how fast work is done, never what comes out."""


EXECUTION = Execution()


class AsTyped:
    """Marks a field whose values are compared with data as they are typed, be they text, numbers or truth values."""


AS_TYPED = AsTyped()


class OneOf:
    """Marks a text that has to be a name in a table, or one of a few beside it; the table may grow."""

    def __init__(self, table: Iterable[str], *more: str) -> None:
        self._table, self._more = table, more

    @property
    def names(self) -> list[str]:
        """All that may be said."""
        return [*self._more, *self._table]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": self.names}

    def _checked(self, value: str) -> str:
        if value not in self.names:
            *some, last = (f"'{name}'" for name in self.names)
            raise PydanticCustomError("one_of", f"Input should be {', '.join(some)} or {last}")
        return value


NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
"""What may be called by a name of the user's: names become parts of paths."""


class Config(BaseModel):
    """Base of all config models."""

    # An expanded variable may be a secret, and tracebacks show what pydantic says.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _on_disk(value: str) -> str:
    if "://" in value:
        raise ValueError("is a folder on disk; copy the finished model to an object store")
    return str(Path(value).expanduser().absolute())


LocalFolder = Annotated[str, AfterValidator(_on_disk)]
"""A folder on disk, made absolute."""


def identity(config: BaseModel) -> dict[str, Any]:
    """Collect the identity fields of a config as plain JSON, recursively.

    What is None is left out: a field that a later version adds, and a config does not use, so leaves its runs and
    artifacts what they are. It says as much, because None is the default of every field that may be None.
    """
    plain = config.model_dump(mode="json")
    return {
        name: _plain_identity(getattr(config, name), plain[name])
        for name, info in type(config).model_fields.items()
        if EXECUTION not in info.metadata and plain[name] is not None
    }


def _plain_identity(value: Any, plain: Any) -> Any:
    if isinstance(value, BaseModel):
        return identity(value)
    if isinstance(value, dict):
        return {key: _plain_identity(item, plain[key]) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_identity(item, one) for item, one in zip(value, plain, strict=True)]
    return plain
