"""A session tells other terminals, Prometheus and logs what it does."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from compass_ray import CurationRun
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.cli import app
from compass_ray.errors import ArtifactMissing, ConfigError, DataError
from compass_ray.runtime import status
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.log import LOG, JsonLines, log_as_asked
from compass_ray.runtime.memory import PeakMemory, process_tree
from compass_ray.runtime.stage import session

KEYS = ["00000", "00001"]


def _work(target: Artifact, missing: list[str]) -> Iterator[Receipt]:
    for key in missing:
        yield target.write(key, pa.table({"x": [1, 2, 3]}))


def test_a_run_in_progress_says_which_stage_it_is_in(local_ray: None, tmp_path: Path) -> None:
    run = f"{tmp_path}/runs/here"
    target = artifact(str(tmp_path), "embed", {})
    seen = []

    def looked(missing: list[str]) -> Iterator[Receipt]:
        seen.append(status.read_status(run))
        yield from _work(target, missing)

    with session(str(tmp_path), RayConfig(), None, "here", "curate") as opened:
        opened.complete(target, KEYS, looked)
    (current,) = [reading.current for reading in seen]
    assert current is not None
    assert (current.stage, current.artifact, current.done, current.total) == ("embed", target.name, 0, 2)
    assert seen[0].state == "running"
    assert seen[0].artifacts == {target.name}
    after = status.read_status(run)
    assert (after.state, after.current, after.stages[0]["rows"]) == ("finished", None, 6)
    assert after.stages[0]["peak_bytes"] >= after.stages[0]["driver_peak_bytes"] > 0


@pytest.mark.parametrize(
    ("raised", "state"), [(DataError("too many bad rows"), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_a_run_that_ends_early_says_why(local_ray: None, tmp_path: Path, raised: BaseException, state: str) -> None:
    target = artifact(str(tmp_path), "embed", {})

    def broken(missing: list[str]) -> Iterator[Receipt]:
        yield from _work(target, missing[:1])
        raise raised

    with pytest.raises(type(raised)), session(str(tmp_path), RayConfig(), None, "here", "curate") as opened:
        opened.complete(target, KEYS, broken)
    found = status.read_status(f"{tmp_path}/runs/here")
    assert found.state == state
    assert found.error is not None
    assert type(raised).__name__ in found.error
    assert found.current is not None
    assert found.current.done == 1
    shown = CliRunner().invoke(app, ["status", f"{tmp_path}/runs/here"])
    assert state in shown.stdout
    assert "1 of 2" in shown.stdout


def test_a_driver_that_stopped_writing_is_taken_for_dead(tmp_path: Path) -> None:
    file = status.StatusFile(str(tmp_path), "curate")
    file.begin("embed", "embed-1", 3, 8)
    assert not status.read_status(str(tmp_path)).seems_dead
    body = json.loads((tmp_path / "status.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps(body | {"updated": "2026-01-01T00:00:00+00:00"}))
    assert status.read_status(str(tmp_path)).seems_dead
    shown = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert "no sign of life" in shown.stdout
    assert "3 of 8" in shown.stdout


def test_a_folder_without_a_run_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(ArtifactMissing, match="no run has started there"):
        status.read_status(str(tmp_path))


def test_a_finished_run_has_the_status_finished(finished_demo: CurationRun) -> None:
    found = status.read_status(finished_demo.path)
    assert found.state == "finished"
    assert found.artifacts == {stage["artifact"] for stage in finished_demo.record["stages"].values()}


def test_rows_shards_and_seconds_are_on_rays_prometheus_endpoint(local_ray: None, tmp_path: Path) -> None:
    import ray

    target = artifact(str(tmp_path), "embed", {})
    with session(str(tmp_path), RayConfig(), None, "measured", None) as opened:
        opened.complete(target, KEYS, lambda missing: _work(target, missing))
    (port,) = {node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]}
    wanted = {"ray_compass_rows_total": 6.0, "ray_compass_shards_total": 2.0}
    deadline = time.monotonic() + 60  # Ray sends metrics once in some seconds
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            lines = [line for line in answer.read().decode().splitlines() if 'run="measured"' in line]
        found = {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in lines}
        if wanted.items() <= found.items() and found.get("ray_compass_stage_peak_bytes", 0) > 0:
            break
        assert time.monotonic() < deadline, f"not there after a minute; found {found}"
        time.sleep(1)
    assert found["ray_compass_stage_seconds"] > 0
    assert all('stage="embed"' in line for line in lines)


def test_log_records_name_run_stage_and_shard(
    local_ray: None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = artifact(str(tmp_path), "embed", {})
    with (
        caplog.at_level(logging.INFO, "compass_ray"),
        session(str(tmp_path), RayConfig(), None, "told", None) as opened,
    ):
        opened.complete(target, KEYS, lambda missing: _work(target, missing))
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records]
    shards = [line for line in lines if line["message"] == "shard done"]
    assert [(line["run"], line["stage"], line["shard"], line["rows"]) for line in shards] == [
        ("told", "embed", "00000", 3),
        ("told", "embed", "00001", 3),
    ]


def test_logs_go_to_stderr_as_json_lines_when_asked_for() -> None:
    code = "from compass_ray.runtime.log import LOG, log_as_asked as f; f(); f(); LOG.info('hello', extra={'run': 'r'})"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"COMPASS_LOG": "info"}, capture_output=True, text=True, check=True
    )
    (line,) = done.stderr.splitlines()
    body = json.loads(line)
    assert (body["level"], body["message"], body["run"]) == ("info", "hello", "r")


def test_an_unknown_log_level_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPASS_LOG", "loud")
    with pytest.raises(ConfigError, match="expected debug, info, warning or error, found 'loud'"):
        log_as_asked()
    assert all(isinstance(handler, logging.NullHandler) for handler in LOG.handlers)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="PSS is told by Linux alone")
def test_memory_of_started_processes_counts_and_is_forgotten_once_taken() -> None:
    code = "data = bytearray(b'x') * (64 << 20); print('ready', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        memory = PeakMemory()
        tree, driver = memory.take()
        assert child.pid in process_tree(child.pid)
        assert tree - driver > 64 << 20
    finally:
        child.communicate("\n", timeout=30)
    assert memory.take()[0] < tree
