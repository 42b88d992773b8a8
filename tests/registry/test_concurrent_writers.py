"""Ten writers at once lose and tear nothing: processes on disk, threads on S3."""

from __future__ import annotations

import multiprocessing
import threading
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from registry_helpers import BASE, add, version_name, write_and_promote

from compass_ray.errors import AliasMoved
from compass_ray.registry.store import Registry

WRITERS = 10


def run_writers(executor: Executor, url: str) -> None:
    done = [executor.submit(write_and_promote, url, number) for number in range(WRITERS)]
    moves = [each.result(timeout=120)[0] for each in done]
    registry = Registry(url)
    aliases = registry.aliases(BASE.key, "sw")
    assert sorted(generation for pair in moves for generation in pair) == list(range(1, 2 * WRITERS + 1))
    assert aliases.generation == 2 * WRITERS
    assert registry.versions(BASE.key, "sw") == sorted(version_name(number) for number in range(WRITERS))
    by_generation = sorted((promoted, number) for number, (_, promoted) in enumerate(moves))
    assert aliases.champion == version_name(by_generation[-1][1])
    assert aliases.previous == version_name(by_generation[-2][1])
    for number in range(WRITERS):
        version = registry.open(f"sw@{version_name(number)}")
        for name in version.lineage.files:
            version.read(name)


def test_ten_processes_on_one_disk_lose_and_tear_nothing(tmp_path: Path) -> None:
    with ProcessPoolExecutor(WRITERS, mp_context=multiprocessing.get_context("spawn")) as executor:
        run_writers(executor, str(tmp_path / "registry"))


def test_ten_writers_on_one_bucket_lose_and_tear_nothing(s3: str) -> None:
    with ThreadPoolExecutor(WRITERS) as executor:
        run_writers(executor, f"{s3}/registry")


def test_of_ten_decisions_on_one_state_one_is_done_and_nine_are_told(registry: Registry) -> None:
    add(registry, *range(WRITERS))
    seen = registry.aliases(BASE.key, "sw")
    together = threading.Barrier(WRITERS)

    def decide(number: int) -> bool:
        together.wait(timeout=60)
        try:
            registry.promote(f"{BASE.key}/sw@{version_name(number)}", seen)
        except AliasMoved as exc:
            assert "look at them again" in str(exc)
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as pool:
        won = list(pool.map(decide, range(WRITERS)))
    assert won.count(True) == 1
    assert registry.open("sw").lineage.version == version_name(won.index(True))
    assert registry.aliases(BASE.key, "sw").generation == 1


def test_ten_writers_of_one_version_make_it_once(registry: Registry) -> None:
    together = threading.Barrier(WRITERS)

    def write(_: int) -> None:
        together.wait(timeout=60)
        add(registry, 1)

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(write, range(WRITERS)))
    assert registry.versions(BASE.key, "sw") == [version_name(1)]
