"""``doctor``, ``submit`` and ``job`` against a cluster with token auth, as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from clusters import RAY, Cluster, cluster_of
from demo import DEMO
from processes import clean_environment

SHOW = """
import sys
from compass_ray import load_config
print("output", load_config(sys.argv[1], sys.argv[3:]).output)
sys.exit(7)
"""


@pytest.fixture(scope="module")
def cluster(cluster_variables: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUCKET_OF_THE_CLUSTER", "s3://there")
        home = tmp_path_factory.mktemp("user")
        with cluster_of(home / "cluster") as running:
            yield running


def compass(cluster: Cluster, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(cluster.folder.parent, **{**cluster.variables, **variables})
    environment.pop("BUCKET_OF_THE_CLUSTER", None)
    return subprocess.run(
        [sys.executable, "-m", "compass_ray", *arguments],
        env=environment, cwd=cluster.folder.parent, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def raw(output: str, pool: str = str(DEMO / "pool" / "*.jsonl")) -> dict[str, Any]:
    return {
        "output": output,
        "sources": {
            "web": {"role": "pool", "path": pool, "columns": {"lang": "lang", "text": "text"}},
            "asked": {"role": "usage", "path": str(DEMO / "usage.tsv.gz"), "lang": "sw"},
        },
        "sample": {"budget": 10},
    }


def config(folder: Path, body: dict[str, Any]) -> str:
    path = folder / "wanted.yaml"
    path.write_text(yaml.safe_dump(body, sort_keys=False))
    return str(path)


def test_the_exit_code_of_the_driver_comes_through(cluster: Cluster, tmp_path: Path) -> None:
    unset = config(tmp_path, raw("${NOT_SET_ANYWHERE}/out"))
    assert compass(cluster, "submit", "curate", unset, "--submission-id", "bad-config", "--no-follow").returncode == 0
    nothing = config(tmp_path, raw(str(tmp_path / "out"), "nowhere/*.jsonl"))
    bad_data = compass(cluster, "submit", "curate", nothing)
    assert bad_data.returncode == 3, bad_data.stderr
    assert "error: sources.web.path: no file matches nowhere/*.jsonl" in bad_data.stdout
    assert bad_data.stderr.endswith(": FAILED\n")
    bad_config = compass(cluster, "job", "logs", "bad-config", "--follow")
    assert bad_config.returncode == 2
    assert "error: wanted.yaml: environment variables not set: NOT_SET_ANYWHERE" in bad_config.stdout

    again = compass(cluster, "submit", "curate", nothing, "--submission-id", "bad-config")
    assert again.returncode == 2
    assert "--submission-id bad-config: this job has FAILED with exit code 2, and an id is used once" in again.stderr


def test_a_script_reads_inline_json_whose_variables_the_cluster_expands(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW)
    body = json.dumps(raw('${BUCKET_OF_THE_CLUSTER}/it\'s "here"'))
    dir_ = ("--working-dir", str(tmp_path))
    done = compass(cluster, "submit", str(tmp_path / "show.py"), body, "--set", "seed=3", *dir_)
    assert 'output s3://there/it\'s "here"' in done.stdout.splitlines()
    assert done.returncode == 7


def test_a_running_job_is_listed_not_started_twice_and_stopped(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "wait.py").write_text("import time; print('waiting', flush=True); time.sleep(300)")
    command = ("submit", str(tmp_path / "wait.py"), "{}", "--working-dir", str(tmp_path), "--submission-id", "waits")
    first = compass(cluster, *command, "--no-follow")
    assert (first.returncode, first.stdout) == (0, "waits\n"), first.stderr
    deadline = time.monotonic() + 60
    while "waiting" not in compass(cluster, "job", "logs", "waits").stdout:
        assert time.monotonic() < deadline

    again = compass(cluster, *command)
    assert again.returncode == 2
    assert "--submission-id waits: this job is RUNNING already; follow it with" in again.stderr
    jobs = json.loads(compass(cluster, "job", "list", "--json").stdout)
    assert [(job["status"], job["entrypoint"]) for job in jobs if job["submission_id"] == "waits"] == [
        ("RUNNING", "python wait.py '{}'")
    ]

    stopped = compass(cluster, "job", "stop", "waits")
    assert (stopped.returncode, stopped.stdout) == (0, "waits: STOPPED\n")
    assert json.loads(compass(cluster, "job", "status", "waits", "--json").stdout)["status"] == "STOPPED"
    assert compass(cluster, "job", "logs", "waits", "--follow").returncode == 130
    assert compass(cluster, "job", "stop", "waits").stdout == "waits: STOPPED\n"


def test_an_unknown_job_is_bad_usage(cluster: Cluster) -> None:
    done = compass(cluster, "job", "status", "nobody")
    assert done.returncode == 2
    assert f"nobody: no such job at {cluster.variables['RAY_API_SERVER_ADDRESS']}" in done.stderr


def test_a_stranger_is_refused_and_told_how_to_come_in(cluster: Cluster, tmp_path: Path) -> None:
    address = cluster.variables["RAY_API_SERVER_ADDRESS"]
    environment = clean_environment(tmp_path, RAY_AUTH_MODE="disabled")
    ours = [sys.executable, "-m", "compass_ray", "job", "list", "--address", address]
    done = subprocess.run(ours, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert "Authentication required" in done.stderr
    assert "RAY_AUTH_MODE=token" in done.stderr
    rays = [RAY, "job", "list", "--address", address]
    assert subprocess.run(rays, env=environment, capture_output=True, text=True, timeout=60).returncode != 0


def test_the_doctor_finds_a_cluster_in_order_and_shows_no_token(cluster: Cluster, tmp_path: Path) -> None:
    path = config(tmp_path, raw(str(tmp_path / "out")))
    done = compass(cluster, "doctor", path, "--json")
    assert done.returncode == 0, done.stdout
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert {check["state"] for check in checks.values()} == {"good"}
    assert list(checks) == [
        "config", "packages", "token auth", "ray", "resources", "nodes", "faiss", "encoder", "actors", "output",
        "source web", "source asked",
    ]  # fmt: skip
    assert checks["resources"]["found"].startswith("1 node, 2 CPUs, 0 GPUs")
    assert checks["nodes"]["found"] == "1 with the same versions as here"
    assert not list((tmp_path / "out").iterdir())
    token = (cluster.folder / "auth_token").read_text()
    assert token not in done.stdout + done.stderr


def test_the_doctor_prints_a_table_in_which_a_failure_stops_no_other_check(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = config(tmp_path, raw(str(tmp_path / "file" / "out"), "nowhere/*.jsonl"))
    done = compass(cluster, "doctor", path, "--set", "embed.model=./no-model", "--set", "cluster.device=gpu")
    assert done.returncode == 4
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "│"]
    states = {name: state for name, state, *_ in rows if name}
    assert {name for name, state in states.items() if state == "failed"} == {"faiss", "encoder", "output", "source web"}
    assert states["nodes"] == states["source asked"] == "good"
    advice = " ".join(row[3] for row in rows if row[3])
    assert "pip install 'compass_ray[gpu]'" in advice
    assert "choose an output folder that this user may write" in advice
