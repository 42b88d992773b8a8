"""How sources are read: ``sources`` and ``ingest`` in the config."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from compass_ray.configbase import EXECUTION, Config
from compass_ray.languages import canonical_language

Role = Literal["pool", "current", "target"]
Format = Literal["auto", "jsonl", "parquet", "csv", "tsv"]
View = Literal["prompt", "completion", "full"]


class Columns(Config):
    """Which columns hold the content: ``text``, or ``prompt`` and ``completion``, or ``messages``."""

    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    lang: str | None = None

    @model_validator(mode="after")
    def _one_kind_of_content(self) -> Columns:
        kinds = [kind for kind in ("text", "prompt", "messages") if getattr(self, kind)]
        if len(kinds) != 1:
            raise ValueError(
                "name exactly one of text, prompt or messages (prompt may have a completion); "
                f"found {' and '.join(kinds) or 'none'}"
            )
        if self.completion and not self.prompt:
            raise ValueError("completion needs prompt beside it")
        return self

    @property
    def wanted(self) -> list[str]:
        """The columns to read, each once."""
        names = (self.text, self.prompt, self.completion, self.messages, self.lang)
        return list(dict.fromkeys(name for name in names if name))


class SourceConfig(Config):
    """One set of files with one role and one layout."""

    role: Role
    path: Annotated[str | list[str], EXECUTION] = Field(description="Path or glob, or several; local or s3://")
    exclude: list[str] = Field(default=[], description="Globs over uri (path below the source's root) to leave out")
    format: Format = Field(default="auto", description="By file name unless given")
    columns: Columns = Columns(text="text")
    lang: str | None = Field(default=None, description="One language for all rows")
    lang_pattern: str | None = Field(
        default=None, description="Regular expression searched in the uri; its group 'lang' is the code"
    )
    where: dict[str, list[str]] = Field(default={}, description="Keep only rows whose column has one of these values")
    owner: str | None = Field(
        default=None, alias="for", description="The target language these rows count for; their own if not given"
    )

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def wanted_columns(self) -> list[str]:
        return list(dict.fromkeys([*self.columns.wanted, *self.where]))

    @field_validator("lang", "owner")
    @classmethod
    def _known_language(cls, value: str | None) -> str | None:
        if value is None or (tag := canonical_language(value)):
            return value if value is None else tag
        raise ValueError(f"'{value}' is not a language code (BCP-47, ISO 639 or FLORES)")

    @field_validator("lang_pattern")
    @classmethod
    def _has_lang_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                groups = re.compile(value).groupindex
            except re.error as exc:
                raise ValueError(f"not a regular expression: {exc}") from exc
            if "lang" not in groups:
                raise ValueError("needs a group named lang, as in '/(?P<lang>[a-z]{2})/'")
        return value

    @field_validator("where", mode="before")
    @classmethod
    def _one_value_or_several(cls, value: object) -> object:
        if isinstance(value, dict):
            return {key: item if isinstance(item, list) else [item] for key, item in value.items()}
        return value

    @model_validator(mode="after")
    def _one_way_to_the_language(self) -> SourceConfig:
        ways = [name for name in ("lang", "lang_pattern") if getattr(self, name)]
        ways += ["columns.lang"] if self.columns.lang else []
        if len(ways) != 1:
            raise ValueError(f"name exactly one of columns.lang, lang or lang_pattern; found {ways or 'none'}")
        if self.role == "pool" and self.owner:
            raise ValueError("pool rows belong to no owner; remove 'for'")
        return self


class IngestConfig(Config):
    """How documents are made from rows."""

    shard_bytes: int = Field(
        default=16 << 20, ge=1 << 10, description="Input bytes per logical shard; sets the shard count"
    )
    max_bad_fraction: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Structural faults (bytes, JSON, columns) tolerated, as a fraction of rows",
    )
    range_bytes: Annotated[int, EXECUTION] = Field(
        default=64 << 20, ge=1 << 10, description="Byte range of a line file that one task reads"
    )
