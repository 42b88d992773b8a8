"""Fixtures that several folders share: a real local Ray, and the demo corpus cut into many shards."""

from __future__ import annotations

import json
import os
import shutil
import sys
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
    """The demo's config in eight shards, with the encoder whose workers start without torch."""
    from compass_ray.cli.demo import load_demo

    sets = [f"output={output}", "ingest.shard_bytes=65536", "embed.model=hashing", *overrides]
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


@pytest.fixture
def copied_demo(finished_demo: Any, tmp_path: Path) -> Callable[..., RunConfig]:
    """The config of ``finished_demo`` on a copy of its output, for tests that damage what is there."""
    shutil.copytree(Path(finished_demo.path).parent.parent, tmp_path / "out")
    return lambda *overrides: demo_config(tmp_path / "out", *overrides)


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


@pytest.fixture(scope="module")
def cluster_variables() -> Iterator[None]:
    """What the nodes of a cluster get from the shell that starts them: this Python, and the checkout as installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
        yield


def write_tiny_base(folder: Path, texts: list[str], seed: int = 0, **size: int) -> Path:
    """A Qwen2 of a few ten thousand random weights with its tokenizer: loads, trains and saves like a large one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from compass_ray.adapt.training.pretraining import TinyModel, write_config, write_tokenizer

    shape = TinyModel(
        **{"vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 4, **size}
    )
    write_tokenizer(folder, texts, shape.vocab_size)
    write_config(folder, shape, shape.vocab_size)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder))).save_pretrained(str(folder))
    return folder


def current_texts() -> dict[str, list[str]]:
    """The demo's current data by language."""
    found: dict[str, list[str]] = {}
    for line in (DEMO / "current.jsonl").read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("text"), str) and row.get("lang"):
            found.setdefault(row["lang"], []).append(row["text"])
    return found


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model for tests that train."""
    texts = [text for group in current_texts().values() for text in group]
    return write_tiny_base(tmp_path_factory.mktemp("base") / "tiny", texts)


def adapt_config(output: Path | str, base: Path | str, *overrides: str) -> RunConfig:
    """A config that trains adapters of Swahili and Tamil on the demo's current data, in seconds."""
    raw = {
        "name": "adapted",
        "output": str(output),
        "sources": {
            "current": {
                "role": "current",
                "path": str(DEMO / "current.jsonl"),
                "columns": {"text": "text", "lang": "lang"},
            }
        },
        "ingest": {"max_bad_fraction": 0.02},
        "adapt": {
            "base": str(base),
            "languages": ["sw", "ta"],
            "max_length": 64,
            "lora": {"rank": 4, "alpha": 8},
            "training": {"batch_size": 8, "epochs": 2, "learning_rate": 0.01},
            "workers": {"parallel_languages": 1, "log_steps": 5, "checkpoint_steps": 5},
        },
    }
    return load_config(raw, list(overrides))


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real S3 API on loopback."""
    from object_store import serving

    with serving(tmp_path_factory.mktemp("s3") / "server.log") as address:
        yield address


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket."""
    from object_store import empty_bucket

    with empty_bucket(s3_endpoint, monkeypatch) as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """An adapter registry on disk and one on S3."""
    from compass_ray.registry.store import Registry

    base = str(tmp_path) if request.param == "local" else str(request.getfixturevalue("s3"))
    return Registry(f"{base}/registry")
