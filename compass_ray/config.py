"""RunConfig: one file for all commands, checked as a whole before any work is done."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from compass_ray import storage
from compass_ray.adapt.config import AdaptConfig
from compass_ray.cluster.config import ClusterConfig
from compass_ray.configbase import EXECUTION, NAME, Config
from compass_ray.embed.config import NO_BASE, EmbedConfig
from compass_ray.errors import ConfigError
from compass_ray.ingest.config import EVALUATIONS, FilesConfig, IngestConfig, SourceConfig
from compass_ray.ingest.overlap import refuse_written
from compass_ray.monitor.config import MonitorConfig
from compass_ray.registry.config import RegistryConfig
from compass_ray.runtime.config import RayConfig
from compass_ray.sample.config import SampleConfig, TargetConfig

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
AnyConfig = TypeVar("AnyConfig", bound=Config)


class RunConfig(Config):
    """Everything a run needs. Sections that are left out have defaults that work."""

    name: Annotated[str, EXECUTION] = Field(default="default", pattern=NAME, description="Name of the run's folder")
    output: Annotated[str, EXECUTION] = Field(description="Folder for runs and cache: a local path or s3://")
    seed: int = Field(default=0, ge=0, description="Seed of every random decision")
    sources: dict[Annotated[str, Field(pattern=NAME)], SourceConfig] = Field(
        default={}, description="Data by name; curate needs a pool and a target, adapt without a selection current data"
    )
    ingest: IngestConfig = IngestConfig()
    embed: EmbedConfig = EmbedConfig()
    cluster: ClusterConfig = ClusterConfig()
    target: TargetConfig = TargetConfig()
    sample: SampleConfig | None = Field(default=None, description="Needed by curate")
    adapt: Annotated[AdaptConfig | None, EXECUTION] = Field(default=None, description="Needed by adapt")
    registry: Annotated[RegistryConfig, EXECUTION] = RegistryConfig()
    monitor: Annotated[MonitorConfig | None, EXECUTION] = Field(default=None, description="Needed by monitor")
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
        if self.ingest.decontaminate is not None:
            read[EVALUATIONS] = self.ingest.decontaminate.evaluations
        registry = self.registry.path or storage.join(self.output, "registry")
        written = [*(storage.join(self.output, *parts) for parts in (["cache"], ["runs", self.name])), registry]
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
        missing = [role for role in ("pool", "target") if role not in roles]
        if self.sample is not None and missing:
            raise ValueError(f"sources: no source has role {' or '.join(missing)}; curate needs a pool and a target")
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
    raw = _as_written(source, overrides, _named(source))
    unset: list[str] = []
    expanded = _expand(raw, unset)
    try:
        RunConfig.model_validate(expanded)
    except ValidationError as exc:
        if problems := _problems(exc, raw, frozenset(unset)):
            raise _invalid(source, problems) from exc
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
    raw = _as_written(source, overrides, defaults)
    missing: list[str] = []
    expanded = _expand(raw, missing)
    if missing:
        raise ConfigError(f"{_where(source)}: environment variables not set: {', '.join(sorted(set(missing)))}")
    try:
        return model.model_validate(expanded), raw
    except ValidationError as exc:
        raise _invalid(source, _problems(exc, raw)) from exc


def is_inline(source: str | Path | Mapping[str, Any]) -> bool:
    """Whether a config is given by its content, and not by the name of a file."""
    return isinstance(source, Mapping) or str(source).lstrip().startswith("{")


def _where(source: str | Path | Mapping[str, Any]) -> str:
    return "config" if is_inline(source) else storage.public(str(source))


def _named(source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    return {} if is_inline(source) else {"name": Path(storage.public(str(source))).stem}


def _as_written(
    source: str | Path | Mapping[str, Any], overrides: Sequence[str], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    raw = {**defaults, **(source if isinstance(source, Mapping) else _read(str(source)))}
    for override in overrides:
        _override(raw, override)
    return raw


def _invalid(source: str | Path | Mapping[str, Any], problems: Sequence[str]) -> ConfigError:
    return ConfigError("\n  ".join([f"{_where(source)}: {len(problems)} problem(s)", *problems]))


def _read(source: str) -> dict[str, Any]:
    where = _where(source)
    try:
        content = yaml.safe_load(source if is_inline(source) else storage.read_bytes(source))
    except (FileNotFoundError, IsADirectoryError) as exc:
        raise ConfigError(f"{where}: no such config file") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{where}: not YAML: {exc}") from exc
    if not isinstance(content, dict):
        raise ConfigError(f"{where}: expected a mapping of sections, found {type(content).__name__}")
    return content


def _override(raw: dict[str, Any], override: str) -> None:
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
    try:
        node[last] = yaml.safe_load(value)
    except yaml.YAMLError as exc:
        raise ConfigError(f"--set {override}: the value is not YAML: {exc}") from exc


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
    """A part of a config without what may be secret in its URLs."""
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return storage.public(value) if isinstance(value, str) else value


def _problems(error: ValidationError, raw: Mapping[str, Any], unset: frozenset[str] = frozenset()) -> list[str]:
    """One line per problem; values are shown as written, since an expanded variable may be a secret.

    Left out is what may come from a variable that is not set, in the field or the section at fault.
    """
    lines = []
    for item in error.errors(include_url=False):
        written = _written(raw, item["loc"])
        if item["loc"] and unset.intersection(match[1] for match in _VARIABLE.finditer(str(written))):
            continue
        field = ".".join(str(part) for part in item["loc"]) or "config"
        found = "" if item["type"] == "missing" or isinstance(written, dict) else f"; found {_public(written)!r}"
        lines.append(f"{field}: {item['msg']}{found}")
    return lines


def _written(raw: Any, location: Sequence[int | str]) -> Any:
    for part in location:
        try:
            raw = raw[part]
        except (KeyError, IndexError, TypeError):
            return {}
    return raw
