"""Fixtures that several folders share: a real local Ray, and the demo corpus cut into many shards."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from demo import current_texts, demo_config
from hypothesis import settings
from tiny_base import write_tiny_base

from compass_ray.config import RunConfig

settings.register_profile("without a clock", deadline=None)  # a busy machine fails no test
settings.load_profile("without a clock")
pytest.register_assert_rewrite("documents")  # what its asserts compare is shown, as in test files


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """One Ray for all tests of this process, with four logical CPUs so that four actors fit."""
    import ray

    from compass_ray.runtime.cluster import connect
    from compass_ray.runtime.config import RayConfig

    connect(RayConfig(num_cpus=4))
    yield
    ray.shutdown()


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


@pytest.fixture(scope="session")
def champion_loop(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A ``Loop`` with a champion of Swahili, of which tests take copies."""
    from loop import Loop

    return Loop.in_folder(tmp_path_factory.mktemp("loop")).with_champion()


@pytest.fixture
def loop(champion_loop: Any, tmp_path: Path) -> Any:
    """A copy of ``champion_loop``: the champion, and nothing updated."""
    return champion_loop.copied(tmp_path)


@pytest.fixture(scope="module")
def cluster_variables() -> Iterator[None]:
    """What the nodes of a cluster get from the shell that starts them: this Python, and the checkout as installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
        yield


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model for tests that train."""
    texts = [text for group in current_texts().values() for text in group]
    return write_tiny_base(tmp_path_factory.mktemp("base") / "tiny", texts)


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


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[Any]:
    """A proxy before the object store that fails where a test asks it to."""
    from faulty_proxy import FaultyProxy

    with FaultyProxy(s3_endpoint).running() as running:
        yield running


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where the Ray of a subprocess leaves its logs; with a name so short that its sockets fit below."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Let torch have one thread: matrices of 32 columns gain nothing from threads that wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
