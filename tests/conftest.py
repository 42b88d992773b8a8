"""Fixtures that several folders share: a real local Ray, and the demo corpus cut into many shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compass_ray.config import RunConfig, load_config

DEMO = Path(__file__).parent.parent / "compass_ray" / "demo"


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests of this process, with four logical CPUs so that four actors fit."""
    import ray

    from compass_ray.runtime.cluster import connect
    from compass_ray.runtime.config import RayConfig

    connect(RayConfig(num_cpus=4))
    yield
    ray.shutdown()


def demo_config(output: Path | str, *overrides: str) -> RunConfig:
    """The demo's config in 32 shards of about fifty documents, with the encoder whose workers start without torch."""
    from compass_ray.cli.demo import load_demo

    sets = [f"output={output}", "ingest.shard_bytes=16384", "embed.model=hashing", *overrides]
    return load_config(load_demo(str(DEMO)), sets)


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[..., RunConfig]:
    """``fresh("sample.budget=10")``: a demo config whose output is empty, so every stage has to run."""
    return lambda *overrides: demo_config(tmp_path / "out", *overrides)


@pytest.fixture
def demo(finished_demo: Any, request: pytest.FixtureRequest) -> Callable[..., RunConfig]:
    """A demo config under a name of its own beside ``finished_demo``, whose artifacts it may reuse."""
    output = Path(finished_demo.path).parent.parent
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:90]
    return lambda *overrides: demo_config(output, f"name={name}", *overrides)


@pytest.fixture(scope="session")
def finished_demo(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An undisturbed run of the demo config, shared by the tests that only look at it."""
    from compass_ray import curate

    return curate(demo_config(tmp_path_factory.mktemp("demo")))


def tree_bytes(folder: Path | str) -> dict[str, bytes]:
    """All files below a folder by relative path: what 'the same bytes' means in tests."""
    root = Path(folder)
    files = {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
    assert files, f"{root} holds no file"
    return files


def clean_environment(home: Path, **variables: str) -> dict[str, str]:
    """The environment of a subprocess that must not see this process's Ray or the user's home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return {**kept, "HOME": str(home), "HF_HUB_OFFLINE": "1", **variables}
