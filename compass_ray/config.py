"""RunConfig: one file for all commands, checked as a whole before any work is done."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from compass_ray import paths, storage, yamlwords
from compass_ray.adapt.config import AdaptConfig
from compass_ray.cluster.config import ClusterConfig
from compass_ray.configbase import AS_TYPED, EXECUTION, NAME, Config
from compass_ray.embed.config import NO_BASE, EmbedConfig
from compass_ray.errors import ConfigError
from compass_ray.gate.config import GateConfig
from compass_ray.ingest.config import EVALUATIONS, FilesConfig, IngestConfig, SourceConfig
from compass_ray.ingest.overlap import refuse_written
from compass_ray.monitor.config import MonitorConfig
from compass_ray.registry.config import RegistryConfig
from compass_ray.runtime.config import RayConfig
from compass_ray.sample.config import SampleConfig
from compass_ray.update.config import UpdateConfig
from compass_ray.yamlwords import Words

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
AnyConfig = TypeVar("AnyConfig", bound=Config)


class RunConfig(Config):
    """Everything a run needs. Sections that are left out have defaults that work."""

    name: Annotated[str, EXECUTION] = Field(default="default", pattern=NAME, description="Name of the run's folder")
    output: Annotated[str, EXECUTION] = Field(description="Folder for runs and cache: a local path or s3://")
    seed: int = Field(default=0, ge=0, description="Seed of every random decision")
    sources: dict[Annotated[str, Field(pattern=NAME)], SourceConfig] = Field(
        default={}, description="Data by name; curate needs a pool and usage, adapt without a selection current data"
    )
    holdout_fraction: float = Field(
        default=0.3,
        ge=0,
        lt=1,
        description="Share of usage documents that the certificate and scores measure on and nothing is chosen by",
    )
    ingest: IngestConfig = IngestConfig()
    embed: EmbedConfig = EmbedConfig()
    cluster: ClusterConfig = ClusterConfig()
    sample: SampleConfig | None = Field(default=None, description="Needed by curate")
    adapt: Annotated[AdaptConfig | None, EXECUTION] = Field(default=None, description="Needed by adapt")
    registry: Annotated[RegistryConfig, EXECUTION] = RegistryConfig()
    monitor: Annotated[MonitorConfig | None, EXECUTION] = Field(default=None, description="Needed by monitor")
    gate: Annotated[GateConfig, EXECUTION] = GateConfig()
    update: Annotated[UpdateConfig, EXECUTION] = UpdateConfig()
    ray: Annotated[RayConfig, EXECUTION] = RayConfig()

    _unexpanded: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def unexpanded(self) -> dict[str, Any]:
        """The config as written, with ``${VAR}`` in place and no query in a URL: what may be kept in ``run.json``."""
        return self._unexpanded

    @field_validator("output")
    @classmethod
    def _writable(cls, value: str) -> str:
        storage.refuse_read_only(value)
        return value

    @model_validator(mode="after")
    def _encoder_has_its_base(self) -> RunConfig:
        embed = self.embed
        if embed.model != "base" or embed.base is not None:
            return self
        if self.adapt is None:
            raise ValueError(f"embed.model: {NO_BASE}")
        if embed.revision not in (None, self.adapt.revision):
            raise ValueError("embed.revision: the base is that of adapt; set adapt.revision, or give embed.base too")
        filled = {"base": self.adapt.base, "revision": self.adapt.revision}
        object.__setattr__(self, "embed", embed.model_copy(update=filled))  # the model is frozen
        return self

    @model_validator(mode="after")
    def _reads_nothing_it_writes(self) -> RunConfig:
        read: dict[str, Mapping[str, FilesConfig]] = {"sources": self.sources}
        if self.monitor is not None:
            read["monitor.usage"] = self.monitor.usage
        if self.gate.texts:
            read["gate.texts"] = self.gate.texts
        if self.ingest.decontaminate is not None:
            read[EVALUATIONS] = self.ingest.decontaminate.evaluations
        registry = self.registry.path or paths.registry_path(self.output)
        written = [paths.cache_path(self.output), paths.runs_path(self.output, self.name), registry]
        for section, files in read.items():
            for name, source in files.items():
                refuse_written(f"{section}.{name}.path", source.paths, written)
        return self

    @model_validator(mode="after")
    def _something_to_do(self) -> RunConfig:
        roles = {source.role for source in self.sources.values()}
        if self.sample is None and self.adapt is None and self.monitor is None:
            raise ValueError(
                "nothing to do: curate needs the section sample, adapt the section adapt, monitor the section monitor"
            )
        missing = [role for role in ("pool", "usage") if role not in roles]
        if self.sample is not None and missing:
            raise ValueError(f"sources: no source has role {' or '.join(missing)}; curate needs a pool and usage")
        if self.sample is None and self.adapt is not None and self.adapt.run is None and "current" not in roles:
            raise ValueError(
                "sources: nothing to train on; adapt needs a source with role current, or a selection (the section "
                "sample), or the folder of a finished run (adapt.run)"
            )
        return self


def load_config(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str] = (), *, name: str | None = None
) -> RunConfig:
    """Read and check a config.

    Parameters
    ----------
    source : path, URL, str or mapping
        A YAML file, local or ``s3://``; or its content, as inline JSON (``{...}``) or a mapping.
    overrides : sequence of str
        ``a.b=value`` in order, the value read as YAML.
    name : str, optional
        Name of the run where the config gives none; the file's stem if not given.

    Raises
    ------
    ConfigError
        With all that is wrong at once: field, value found, what is allowed.
    """
    config, raw = read_config(RunConfig, source, overrides, _named(source) if name is None else {"name": name})
    config._unexpanded = _public(raw)
    return config


def check_elsewhere(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Check a config that another machine will read, whose variables may not be set on this one.

    What is wrong with a field or section that holds such a variable is left to that machine.

    Returns
    -------
    dict
        The config as written, with the overrides.

    Raises
    ------
    ConfigError
        As :func:`load_config`, but for the unset variables.
    """
    raw, words = _as_written(source, overrides, _named(source))
    unset: list[str] = []
    expanded = _expand(raw, unset)
    _, problems = _check(RunConfig, expanded, raw, words, frozenset(unset))
    if problems:
        raise _invalid(source, problems)
    return raw


def read_config(
    model: type[AnyConfig],
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str],
    defaults: Mapping[str, Any],
) -> tuple[AnyConfig, dict[str, Any]]:
    """Read a config of any kind: the checked model, and the mapping as written.

    Parameters are those of :func:`load_config`; ``defaults`` are fields that the source may leave out.
    """
    raw, words = _as_written(source, overrides, defaults)
    missing: list[str] = []
    expanded = _expand(raw, missing)
    if missing:
        raise ConfigError(f"{_where(source)}: environment variables not set: {', '.join(sorted(set(missing)))}")
    config, problems = _check(model, expanded, raw, words)
    if config is None or problems:
        raise _invalid(source, problems)
    return config, raw


def is_inline(source: str | Path | Mapping[str, Any]) -> bool:
    """Tell whether a config is given by content, not by a file's name."""
    return isinstance(source, Mapping) or str(source).lstrip().startswith("{")


def _where(source: str | Path | Mapping[str, Any]) -> str:
    return "config" if is_inline(source) else storage.public(str(source))


def _named(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    return {} if is_inline(source) else {"name": Path(storage.public(str(source))).stem}


def _as_written(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str], defaults: Mapping[str, Any]
) -> tuple[dict[str, Any], Words]:
    content, words = (source, Words()) if isinstance(source, Mapping) else _read(str(source))
    raw = {**defaults, **content}
    for override in overrides:
        words = _override(raw, override, words)
    return raw, words


def _invalid(source: str | Path | Mapping[str, Any], problems: Sequence[str]) -> ConfigError:
    return ConfigError("\n  ".join([f"{_where(source)}: {len(problems)} problem(s)", *problems]))


def _read(source: str) -> tuple[dict[str, Any], Words]:
    where = _where(source)
    try:
        content, words = yamlwords.load(source if is_inline(source) else storage.read_bytes(source))
    except (FileNotFoundError, IsADirectoryError) as exc:
        raise ConfigError(f"{where}: no such config file") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{where}: not YAML: {exc}") from exc
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected a mapping of sections, found {type(content).__name__}")
    return content, words


def _override(raw: dict[str, Any], override: str, words: Words) -> Words:
    """Set a field in place; returns the words that are left, and those of the value."""
    path, found, value = override.partition("=")
    if not found or not path:
        raise ConfigError(f"--set {override}: expected field.path=value")
    *parents, last = path.split(".")
    node = raw
    for parent in parents:
        child = node.get(parent)
        if child is not None and not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent} holds {child!r}, not a section")
        node[parent] = dict(child or {})
        node = node[parent]
    place = tuple(path.split("."))
    try:
        node[last], there = yamlwords.load(value, place)
    except yaml.YAMLError as exc:
        raise ConfigError(f"--set {override}: the value is not YAML: {exc}") from exc
    return words.replaced(place, there)


def _expand(value: Any, missing: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _expand(item, missing) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, missing) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        name, default = match.groups()
        if name not in os.environ and default is None:
            missing.append(name)
            return match[0]
        return os.environ.get(name) or default or ""

    return _VARIABLE.sub(replace, value)


def _public(value: Any) -> Any:
    """Drop what may be secret in the URLs of a config's part."""
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return storage.public(value) if isinstance(value, str) else value


def _check(
    model: type[AnyConfig],
    expanded: Mapping[str, Any],
    raw: Mapping[str, Any],
    words: Words,
    unset: frozenset[str] = frozenset(),
) -> tuple[AnyConfig | None, list[str]]:
    """Check a config. Returns it if it is one, and all that is wrong, a line each."""
    keys = [f"{_dotted(path[:-1]) or 'config'}: the key {word}" for path, word in words.keys.items()]
    config: AnyConfig | None = None
    problems: list[str] = []
    known: list[tuple[int | str, ...]] = []
    try:
        config = model.model_validate(expanded)
    except ValidationError as exc:
        problems, known = _problems(exc, raw, words, unset), [item["loc"] for item in exc.errors()]
    misread = [
        f"{_dotted(path)}: found {word}"
        for path, word in words.values.items()
        if (word.is_misread or (config is not None and _is_as_typed(config, path)))
        and not any(location[: len(path)] == path for location in known)
    ]
    return config, [*keys, *problems, *misread]


def _is_as_typed(config: Config, path: Sequence[int | str]) -> bool:
    """Tell whether a path leads into a field that is compared with data."""
    node: Any = config
    for part in path:
        if isinstance(node, Config):
            fields = type(node).model_fields
            name = next((name for name, info in fields.items() if part in (name, info.alias)), None)
            if name is None or AS_TYPED in fields[name].metadata:
                return name is not None
            node = getattr(node, name)
        elif isinstance(node, dict):
            node = node.get(part)
        else:
            return False
    return False


def _problems(error: ValidationError, raw: Mapping[str, Any], words: Words, unset: frozenset[str]) -> list[str]:
    """Write one line per problem. Values are shown as written, since an expanded variable may be a secret.

    Left out is what may come from a variable that is not set, in the field or the section at fault.
    """
    lines = []
    for item in error.errors(include_url=False):
        written = _written(raw, item["loc"])
        if item["loc"] and unset.intersection(match[1] for match in _VARIABLE.finditer(str(written))):
            continue
        found = "" if item["type"] == "missing" or isinstance(written, dict) else f"; found {_public(written)!r}"
        if word := words.at(item["loc"]):
            found = f"; found {word}"
        elif item["type"] == "string_type" and isinstance(written, bool | int | float | date):
            found += "; text is written in quotes"
        lines.append(f"{_dotted(item['loc']) or 'config'}: {item['msg']}{found}")
    return lines


def _dotted(path: Sequence[int | str]) -> str:
    return ".".join(map(str, path))


def _written(raw: Any, location: Sequence[int | str]) -> Any:
    for part in location:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return {}
    return raw
