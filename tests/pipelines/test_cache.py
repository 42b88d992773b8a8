"""What a cache holds, who uses it, and what may go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from compass_ray import CurationRun, storage
from compass_ray.artifacts import Artifact, artifact
from compass_ray.cli import app
from compass_ray.pipelines.cache import list_cached, remove, unused


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "local" else f"{request.getfixturevalue('s3')}/out"


def _made(output: str, stage: str, *, commit: bool = True) -> Artifact:
    made = artifact(output, stage, {"version": 1})
    receipt = made.write("00000", pa.table({"x": [1, 2, 3]}))
    if commit:
        made.commit([receipt])
    return made


def _write(output: str, name: str, body: dict[str, Any]) -> None:
    storage.write_bytes(f"{output}/runs/{name}", json.dumps(body).encode())


def test_only_artifacts_that_no_run_refers_to_are_removed(output: str) -> None:
    stages = ("embed", "tokens", "ingest", "codebook", "windows")
    curated, adapted, begun, frozen, watched = (_made(output, stage) for stage in stages)
    orphan, broken_off = _made(output, "assign"), _made(output, "sample", commit=False)
    _write(output, "one/run.json", {"stages": {"embed": {"artifact": curated.name}}, "codebook": frozen.url})
    _write(output, "one/adapt.json", {"stages": {"tokens": adapted.name}})
    status = {"command": "curate", "updated": "2026-01-01T00:00:00+00:00", "stages": [], "current": None}
    at_work = {"stage": "ingest", "artifact": begun.name, "done": 0, "total": 1, "started": "2026-01-01T00:00:00+00:00"}
    _write(output, "two/status.json", status | {"current": at_work})
    at_work |= {"stage": "windows", "artifact": watched.name}
    _write(output, "two/monitor/status.json", status | {"command": "monitor", "current": at_work})

    before = {one.name: one for one in list_cached(output)}
    assert before[curated.name].runs == before[adapted.name].runs == before[frozen.name].runs == ("one",)
    assert before[begun.name].runs == before[watched.name].runs == ("two",)
    assert before[curated.name].complete
    assert not before[broken_off.name].complete
    assert before[curated.name].bytes > 0

    assert unused(list(before.values()), older_than_s=3600) == [], "something may be in the making"
    going = unused(list(before.values()), older_than_s=-1)
    assert {one.name for one in going} == {orphan.name, broken_off.name}
    for one in going:
        remove(one)
    assert {one.name for one in list_cached(output)} == {one.name for one in (curated, adapted, begun, frozen, watched)}
    assert curated.read("00000").num_rows == 3


def test_pruning_asks_for_nothing_of_a_finished_run(finished_demo: CurationRun) -> None:
    output = str(Path(finished_demo.path).parent.parent)
    used = {stage["artifact"] for stage in finished_demo.record["stages"].values()}
    listed = CliRunner().invoke(app, ["cache", "list", output, "--json"])
    assert {one["artifact"] for one in json.loads(listed.stdout) if "demo" in one["runs"]} == used
    pruned = CliRunner().invoke(app, ["cache", "prune", output, "--older-than", "0", "--dry-run", "--json"])
    assert pruned.exit_code == 0, pruned.stderr
    assert not used & {one["artifact"] for one in json.loads(pruned.stdout)}
    assert "would delete" in pruned.stderr
    assert all(storage.exists(f"{output}/cache/{name}/manifest.json") for name in used)
