"""What of a config decides bytes, and so is hashed, and what only decides where and how fast work is done."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import pytest
from configs import GOOD, good, models
from pydantic import BaseModel

from compass_ray.cluster.config import ClusterConfig
from compass_ray.config import RunConfig, load_config
from compass_ray.configbase import EXECUTION, Config, identity
from compass_ray.embed.config import EmbedConfig
from compass_ray.ingest.config import IngestConfig, SourceConfig


def leaves(config: BaseModel, prefix: str = "") -> set[str]:
    """Dotted names of all fields that are not None, through models."""
    names: set[str] = set()
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            names |= leaves(value, f"{prefix}{name}.")
        elif value is not None:
            names.add(prefix + name)
    return names


def identity_leaves(values: dict[str, Any], prefix: str = "") -> set[str]:
    names: set[str] = set()
    for name, value in values.items():
        names |= identity_leaves(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name}
    return names


@pytest.mark.parametrize(
    ("config", "execution"),
    [
        (ClusterConfig(actors=2), {"codebook", "actors", "device"}),
        (EmbedConfig(actors=2), {"num_gpus", "num_cpus", "actors"}),
        (IngestConfig(), {"range_bytes"}),
        (
            SourceConfig(role="pool", path="a", lang="en"),
            {"path"},
        ),
    ],
    ids=["cluster", "embed", "ingest", "source"],
)
def test_only_execution_fields_are_left_out_of_the_identity(config: Config, execution: set[str]) -> None:
    assert leaves(config) - identity_leaves(identity(config)) == execution


def test_no_other_field_is_marked() -> None:
    marked = {
        f"{model.__name__}.{name}"
        for model in models(RunConfig)
        for name, info in model.model_fields.items()
        if EXECUTION in info.metadata
    }
    assert marked == {
        "AdaptConfig.base", "AdaptConfig.chat_template", "AdaptConfig.languages", "AdaptConfig.revision",
        "AdaptConfig.run", "AdaptConfig.tracker", "AdaptConfig.workers",
        "ClusterConfig.actors", "ClusterConfig.codebook", "ClusterConfig.device",
        "EmbedConfig.actors", "EmbedConfig.base", "EmbedConfig.num_cpus", "EmbedConfig.num_gpus",
        "FilesConfig.path", "SourceConfig.path", "UsageConfig.path", "IngestConfig.range_bytes",
        "FilesConfig.split", "SourceConfig.split", "UsageConfig.split",
        "RegistryConfig.path", "RegistryConfig.store_text",
        "RunConfig.adapt", "RunConfig.gate", "RunConfig.monitor", "RunConfig.name", "RunConfig.output", "RunConfig.ray",
        "RunConfig.registry", "RunConfig.update", "TextsConfig.path", "TextsConfig.split", "UpdateConfig.when",
    }  # fmt: skip


def test_none_is_the_default_of_every_field_that_may_be_none() -> None:
    for model in models(RunConfig):
        for name, info in model.model_fields.items():
            if type(None) in get_args(info.annotation):
                assert info.default is None, f"{model.__name__}.{name}"


def test_identity_of_a_run_leaves_out_name_output_and_ray() -> None:
    one = load_config(good(name="a", output="here", ray={"num_cpus": 2}, embed={"actors": 3}))
    other = load_config(good(name="b", output="there", ray={"address": "auto"}, cluster={"actors": 9}))
    assert identity(one) == identity(other)
    assert {"name", "output", "ray"}.isdisjoint(identity(one))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"sample": {"budget": 101}},
        {"cluster": {"n_clusters": 99}},
        {"embed": {"threads": 2}},
        {"holdout_fraction": 0.2},
        {"ingest": {"shard_bytes": 4096}},
    ],
    ids=str,
)
def test_every_field_that_changes_bytes_changes_the_identity(change: dict[str, Any]) -> None:
    assert identity(load_config(good(**change))) != identity(load_config(GOOD))


def test_moving_the_data_to_another_folder_does_not_change_a_runs_identity() -> None:
    moved = good()
    moved["sources"]["web"]["path"] = "/new/place/pool/*.jsonl"
    assert identity(load_config(moved)) == identity(load_config(GOOD))


class Inner(Config):
    kept: int = 1
    workers: int = 2


def test_a_field_is_identity_unless_it_is_marked() -> None:
    class Marked(Config):
        inner: Inner = Inner()
        where: Annotated[str, EXECUTION] = "here"
        unmarked: str = "x"
        new: Inner | None = None

    assert identity(Marked()) == {"inner": {"kept": 1, "workers": 2}, "unmarked": "x"}
    assert identity(Marked(new=Inner())) == identity(Marked()) | {"new": {"kept": 1, "workers": 2}}


def test_a_marked_field_is_left_out_wherever_its_model_is_held() -> None:
    class Inner(Config):
        seen: int = 1
        place: Annotated[str, EXECUTION] = "here"

    class Outer(Config):
        one: Inner = Inner()
        some: list[Inner] = [Inner(seen=2), Inner(seen=3)]
        named: dict[str, Inner] = {"a": Inner(seen=4)}

    plain = {"one": {"seen": 1}, "some": [{"seen": 2}, {"seen": 3}], "named": {"a": {"seen": 4}}}
    assert identity(Outer()) == plain
