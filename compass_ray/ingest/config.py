"""How sources are read: ``sources`` and ``ingest`` in the config."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import AwareDatetime, Field, ValidationInfo, field_validator, model_validator

from compass_ray import storage
from compass_ray.configbase import AS_TYPED, EXECUTION, Config, OneOf
from compass_ray.ingest.formats import FORMATS, is_delimited
from compass_ray.ingest.ngrams import Lengths
from compass_ray.ingest.templates import fields_of, is_template
from compass_ray.languages import WIKIPEDIA, canonical_language, language_refusal
from compass_ray.values import Scalar, written

Role = Literal["pool", "current", "usage"]
Format = Annotated[str, OneOf(FORMATS, "auto")]
View = Literal["prompt", "completion", "full"]

EVALUATIONS = "ingest.decontaminate.evaluations"
"""Where a config has evaluations, for errors."""

DETECT = "detect"
"""In place of a language: told from the text of each row."""

AUTO = "auto"
NONE = "none"
_POSITION = re.compile(r"column_[1-9]\d*")


def column_name(position: int) -> str:
    """Name a column without a header, counted from 1."""
    return f"column_{position}"


def is_position(name: str) -> bool:
    """Tell whether a column without a header may be called so."""
    return _POSITION.fullmatch(name) is not None


class Limits(NamedTuple):
    """What no input may exceed, lest one file exhaust a worker."""

    row_bytes: int = 64 << 20
    file_bytes: int = 256 << 30  # after decompression


class Dialect(NamedTuple):
    """How csv and tsv files are written; ``auto`` is told from the beginning of each file."""

    delimiter: str = AUTO
    quote: str = AUTO
    escape: str = AUTO
    header: bool = True


class Columns(Config):
    """Which columns hold the content: ``text``, or ``prompt`` and ``completion``, or ``messages``.

    Columns are names or dotted paths (``question.stem``, ``choices.0.text``); ``text``, ``prompt``, ``completion``,
    ``system`` and ``lang`` may also be templates over several of them (``"{title}: {body}"``, ``"{lang}_{script}"``),
    and over lists (``"{choices.*.text}"``).
    """

    text: str | None = Field(default=None, description="Plain text")
    prompt: str | None = Field(default=None, description="What is asked; with completion, or alone")
    completion: str | None = Field(default=None, description="What is answered")
    messages: str | None = Field(
        default=None, description="Chat as OpenAI, ShareGPT and their kin write it, or its JSON"
    )
    system: str | None = Field(default=None, description="What the system says first; beside messages or prompt")
    tools: str | None = Field(
        default=None, description="What the assistant may call, a list or its JSON; beside messages or prompt"
    )
    lang: str | None = Field(default=None, description="The language of a row, in any notation")
    timestamp: str | None = Field(
        default=None, description="ISO 8601, RFC 2822, a number such as 20240229, or Unix time; UTC unless it says"
    )

    @field_validator("text", "prompt", "completion", "system", "lang")
    @classmethod
    def _sound_template(cls, value: str | None) -> str | None:
        if value is not None and not fields_of(value):
            raise ValueError(f"'{value}': a template needs a field in braces")
        return value

    @field_validator("messages", "tools", "timestamp")
    @classmethod
    def _no_template(cls, value: str | None) -> str | None:
        if value is not None and is_template(value):
            raise ValueError(
                f"'{value}': expected one column; templates are for text, prompt, completion, system and lang"
            )
        return value

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
        if self.text and (beside := [kind for kind in ("system", "tools") if getattr(self, kind)]):
            raise ValueError(f"{' and '.join(beside)} beside text: name messages or prompt in place of text")
        return self

    @property
    def wanted(self) -> list[str]:
        """The columns to read, each once."""
        content = (self.text, self.prompt, self.completion, self.messages, self.system, self.tools)
        specs = (*content, self.lang, self.timestamp)
        return list(dict.fromkeys(field for spec in specs if spec for field in fields_of(spec)))


class FilesConfig(Config):
    """One set of files with one layout."""

    reads_all_splits: ClassVar[bool] = True

    path: Annotated[str | list[str], EXECUTION] = Field(
        description="File, folder or glob, or several; local, s3://, gs:// or az://, or single files by http(s)://"
    )
    exclude: list[str] = Field(default=[], description="Globs over uri (path below the source's root) to leave out")
    format: Format = Field(default="auto", description="By file name unless given")
    split: Annotated[str | list[str] | None, EXECUTION] = Field(
        default=None,
        description="Splits to read, or all. If not given, train where a folder has splits; of evaluations all",
    )
    delimiter: str = Field(default=AUTO, description="Of csv and tsv: one ASCII character, or 'tab'; told if not given")
    quote: str = Field(
        default=AUTO, description="Of csv and tsv: one ASCII character, or 'none': quotes are text; told if not given"
    )
    escape: str = Field(
        default=AUTO,
        description="Of csv and tsv: the character that takes its meaning from the next, or 'none'; told if not given",
    )
    header: bool = Field(
        default=True, description="Of csv and tsv; without one ('none') columns are called column_1, column_2, ..."
    )
    columns: Columns = Columns(text="text")
    where: Annotated[dict[str, list[Scalar]], AS_TYPED] = Field(
        default={}, description="Keep only rows whose column has one of these values, spelled as in JSON"
    )

    @property
    def paths(self) -> list[str]:
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def wanted_splits(self) -> list[str] | None:
        """The splits to read, none if all of them; None if that is for their names to tell."""
        given = [self.split] if isinstance(self.split, str) else self.split
        return [] if given == ["all"] or (given is None and self.reads_all_splits) else given

    @property
    def wanted_columns(self) -> list[str]:
        return list(dict.fromkeys([*self.columns.wanted, *self.where]))

    @property
    def dialect(self) -> Dialect:
        return Dialect(self.delimiter, self.quote, self.escape, self.header)

    @property
    def dialect_fields(self) -> list[str]:
        """The fields that say how delimited text is written, as far as the config has them."""
        return [name for name, default in Dialect()._asdict().items() if getattr(self, name) != default]

    @field_validator("path")
    @classmethod
    def _sound_addresses(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("expected a file, a folder or a glob, or several")
        for path in [value] if isinstance(value, str) else value:
            storage.check_address(path)
        return value

    @field_validator("delimiter", "quote", "escape", mode="before")
    @classmethod
    def _one_character(cls, value: object, info: ValidationInfo) -> object:
        words = (AUTO,) if info.field_name == "delimiter" else (AUTO, NONE)
        found = NONE if value is None else "\t" if value in ("tab", "\\t") else value
        if found in words or (isinstance(found, str) and len(found) == 1 and found.isascii() and found not in "\r\n\0"):
            return found
        raise ValueError(
            f"expected one ASCII character (in quotes: '|') or {' or '.join(words)}, found {value!r:.40}"
            + ("; a tab is written tab" if info.field_name == "delimiter" else "")
        )

    @field_validator("header", mode="before")
    @classmethod
    def _header_or_none(cls, value: object) -> object:
        return False if value in (None, NONE) else value

    @model_validator(mode="after")
    def _sound_dialect(self) -> FilesConfig:
        if not is_delimited(self.format) and (given := self.dialect_fields):
            raise ValueError(f"{given[0]}: csv and tsv have one, and format is {self.format}; remove it")
        given = [name for name in self.dialect_fields if len(str(getattr(self, name))) == 1]
        if len({getattr(self, name) for name in given}) < len(given):
            raise ValueError(
                f"{' and '.join(given)} cannot be one character; a doubled quote stands for a quote without an escape"
            )
        if not self.header and (named := [name for name in self.wanted_columns if not is_position(name)]):
            raise ValueError(f"without a header columns are called column_1, column_2, ...; found {', '.join(named)}")
        return self

    @field_validator("split")
    @classmethod
    def _sound_splits(cls, value: str | list[str] | None) -> str | list[str] | None:
        names = [value] if isinstance(value, str) else value
        if names is not None and (not names or not all(name.strip() for name in names)):
            raise ValueError("expected the name of a split, several, or 'all'")
        if names and len(names) > 1 and "all" in names:
            raise ValueError("'all' takes in the others; give it alone")
        return value

    @field_validator("where", mode="before")
    @classmethod
    def _one_value_or_several(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        several = {key: item if isinstance(item, list) else [item] for key, item in value.items()}
        for key, items in several.items():
            if not items:
                raise ValueError(f"{key}: an empty list keeps no row; name values, or remove the column")
            for item in items:
                if not isinstance(item, Scalar) or written(item) is None:
                    found = f"{written(item) or item} ({type(item).__name__})"
                    raise ValueError(f"{key}: expected text, a number, true, false or null, found {found}; quote text")
        return several


class SourceConfig(FilesConfig):
    """One set of files with one role."""

    reads_all_splits: ClassVar[bool] = False

    role: Role
    lang: str | None = Field(default=None, description="One language for all rows, or 'detect'")
    min_confidence: float = Field(
        default=0.5, ge=0, le=1, description="Below this a detected language is unknown; for lang: detect"
    )
    lang_pattern: str | None = Field(
        default=None, description="Regular expression searched in the uri; its group 'lang' is the code"
    )
    lang_map: dict[str, str] = Field(
        default={}, description="Codes of this source that nobody else writes so, or 'wikipedia' for Wikipedia's own"
    )
    min_characters: int = Field(
        default=1, ge=1, description="Shorter content is left out; all turns together, as far as it is seen"
    )
    max_characters: int | None = Field(default=None, ge=1, description="Longer content is left out")
    since: AwareDatetime | None = Field(
        default=None, description="Rows of before this moment, and those without a timestamp, are left out"
    )
    until: AwareDatetime | None = Field(
        default=None, description="Rows of this moment or later, and those without a timestamp, are left out"
    )
    target_lang: str | None = Field(
        default=None, description="The target language these rows count for; their own if not given"
    )

    @field_validator("lang", "target_lang")
    @classmethod
    def _known_language(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or (value == DETECT and info.field_name == "lang"):
            return value
        if tag := canonical_language(value):
            return tag
        raise ValueError(language_refusal(value))

    @field_validator("lang_map", mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        return WIKIPEDIA if value == "wikipedia" else value

    @field_validator("lang_map")
    @classmethod
    def _known_languages(cls, value: dict[str, str]) -> dict[str, str]:
        tags = {code: canonical_language(lang) for code, lang in value.items()}
        if unknown := [lang for code, lang in value.items() if tags[code] is None]:
            raise ValueError(language_refusal(unknown[0]))
        return {code: tag for code, tag in tags.items() if tag}

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

    @model_validator(mode="after")
    def _one_way_to_the_language(self) -> SourceConfig:
        ways = [name for name in ("lang", "lang_pattern") if getattr(self, name)]
        ways += ["columns.lang"] if self.columns.lang else []
        if len(ways) != 1:
            raise ValueError(f"name exactly one of columns.lang, lang or lang_pattern; found {ways or 'none'}")
        if self.max_characters is not None and self.max_characters < self.min_characters:
            raise ValueError(f"max_characters {self.max_characters} is below min_characters {self.min_characters}")
        bounds = [name for name in ("since", "until") if getattr(self, name)]
        if bounds and not self.columns.timestamp:
            raise ValueError(f"{bounds[0]} goes by timestamps: name their column (columns.timestamp)")
        if self.since and self.until and self.since >= self.until:
            raise ValueError(f"since {self.since} is not before until {self.until}, so that no row is left")
        if self.role == "pool" and self.target_lang:
            raise ValueError("pool rows belong to no target language; remove 'target_lang'")
        return self


class Decontamination(Config):
    """Which pool rows are left out because they hold passages of evaluation sets."""

    evaluations: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")], FilesConfig] = Field(
        min_length=1, description="Evaluation files by name; prompt, completion and all turns of a row are compared"
    )
    words: int = Field(default=Lengths().words, ge=5, description="A passage is so many words in common")
    characters: int = Field(default=Lengths().characters, ge=5, description="The same in Chinese and Japanese")
    letters: int = Field(
        default=Lengths().letters, ge=5, description="The same in Thai, Lao, Khmer, Burmese and Tibetan"
    )
    vowel_marks: bool = Field(default=False, description="Whether Arabic harakat and Hebrew niqqud make a difference")

    @property
    def lengths(self) -> Lengths:
        return Lengths(self.words, self.characters, self.letters)


class MinHash(Config):
    """Which pool rows are left out because they nearly repeat another one of their language."""

    similarity: float = Field(
        default=0.8, ge=0.5, lt=1, description="Of sets of n-grams (Jaccard), above which pairs are meant to be found"
    )
    hashes: int = Field(default=128, ge=16, le=1024, description="More of them: fewer errors around the similarity")
    words: int = Field(default=5, ge=1, description="Length of an n-gram")
    characters: int = Field(default=5, ge=1, description="The same in Chinese and Japanese")
    letters: int = Field(default=12, ge=1, description="The same in Thai, Lao, Khmer, Burmese and Tibetan")
    vowel_marks: bool = Field(default=False, description="Whether Arabic harakat and Hebrew niqqud make a difference")

    @property
    def lengths(self) -> Lengths:
        return Lengths(self.words, self.characters, self.letters)


class IngestConfig(Config):
    """How documents are made from rows."""

    view: View = Field(default="prompt", description="Which part of a conversation is embedded")
    shard_bytes: int = Field(
        default=4 << 20, ge=1 << 10, description="Input bytes per logical shard; sets the shard count"
    )
    max_row_bytes: int = Field(default=64 << 20, ge=1 << 10, description="A longer line or element is a bad row")
    max_file_bytes: int = Field(
        default=256 << 30, ge=1 << 10, description="A file that decompresses to more is read no further"
    )
    max_bad_fraction: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Structural faults (bytes, JSON, columns) tolerated, as a fraction of rows",
    )
    decontaminate: Decontamination | None = Field(
        default=None, description="Leave out pool rows that share a passage with evaluation files"
    )
    minhash: MinHash | None = Field(default=None, description="Leave out pool rows that nearly repeat another one")
    range_bytes: Annotated[int, EXECUTION] = Field(
        default=64 << 20, ge=1 << 10, description="Byte range of a line file that one task reads"
    )

    @property
    def limits(self) -> Limits:
        return Limits(self.max_row_bytes, self.max_file_bytes)
