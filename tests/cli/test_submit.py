"""What ``compass-ray submit`` refuses before it has talked to a cluster, and a cluster that is not there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from compass_ray.cli import app
from compass_ray.errors import CompassError, ConfigError, ResourcesMissing
from compass_ray.runtime.jobs import Job

GOOD = (
    '{"output": "/shared/out", "sources": {"web": {"role": "pool", "path": "p", "lang": "en"}, '
    '"asked": {"role": "usage", "path": "t", "lang": "sw"}}, "sample": {"budget": 5}}'
)
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., CompassError]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)

    def refused(*arguments: str) -> CompassError:
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, CompassError), result.output
        return result.exception

    return refused


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("curate", GOOD, "--set", "sample.budget=0"), "config: 1 problem(s)\n  sample.budget: Input should be"),
        (("curate", GOOD, "--set", "output=here"), "output: 'here' is relative, and a job's folder is deleted after"),
        (("curate", "nowhere.yaml"), "nowhere.yaml: no such config file"),
        (("doctor", GOOD), "JOB doctor: expected one of curate, compare, adapt, monitor, update, gate, or the"),
        (("jobs/none.py", GOOD), "JOB jobs/none.py: no such file"),
        (("curate", GOOD, "--working-dir", "none"), "--working-dir none: no such folder"),
        (("curate", GOOD, "--submission-id", "a/b"), "submission id 'a/b': expected letters"),
        (("curate", GOOD, "--address", "127.0.0.1:6379"), "--address 127.0.0.1:6379: expected the dashboard's address"),
        (("curate", GOOD, "--address", "http://me:secret@host:1"), "--address host:1: expected"),
    ],
)
def test_what_cannot_run_is_bad_usage_and_nothing_is_asked_of_a_cluster(
    refusal: Callable[..., CompassError], arguments: tuple[str, ...], expected: str
) -> None:
    address = () if "--address" in arguments else ("--address", NOBODY)
    found = refusal("submit", *arguments, *address)
    assert isinstance(found, ConfigError)
    assert expected in str(found)
    assert "secret" not in str(found)


def test_a_config_outside_the_folder_that_is_uploaded_is_refused(
    refusal: Callable[..., CompassError], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "c.yaml").write_text(GOOD)
    found = refusal("submit", "curate", "c.yaml", "--working-dir", "here", "--address", NOBODY)
    assert "CONFIG c.yaml: is not in here, the folder that is uploaded" in str(found)


def test_a_variable_that_is_not_set_here_is_left_to_the_cluster(refusal: Callable[..., CompassError]) -> None:
    sets = ("--set", "output=${NOT_SET_HERE}", "--set", "sample.budget=${NOT_SET_HERE}", "--address", NOBODY)
    assert isinstance(refusal("submit", "curate", GOOD, *sets), ResourcesMissing)


def test_a_cluster_that_is_not_there_is_known_within_seconds(refusal: Callable[..., CompassError]) -> None:
    with socket.socket() as silent:  # holds the port and never listens
        silent.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        started = time.monotonic()
        found = refusal("job", "list", "--address", address)
    assert time.monotonic() - started < 10
    assert isinstance(found, ResourcesMissing)
    assert f"{address}: no job server answers there; give --address http://HOST:8265" in str(found)


def test_every_command_that_can_be_submitted_takes_a_config_and_prints_json() -> None:
    from compass_ray.pipelines.jobs import COMMANDS

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name in COMMANDS:
        parameters = commands[name].params
        assert "CONFIG" in {parameter.metavar for parameter in parameters}
        assert {"--json", "--set"} <= {option for parameter in parameters for option in parameter.opts}


def test_a_job_that_monitors_exits_as_its_script_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both with 10 on drift and 11 on usage that nothing is known of; a job that has failed exits with its driver's."""
    entrypoints = []

    class Server:
        address = NOBODY

        def __init__(self, address: str | None) -> None: ...

        def submit(self, entrypoint: str, *_: object) -> str:
            entrypoints.append(entrypoint)
            return "id"

        def follow(self, *_: object) -> Job:
            return Job("id", "FAILED", 10, entrypoints[-1], None, None, "")

    monkeypatch.setattr("compass_ray.pipelines.jobs.JobServer", Server)
    watched = GOOD[:-1] + ', "monitor": {"usage": {"log": {"path": "l", "lang": "sw"}}}}'
    assert CliRunner().invoke(app, ["submit", "monitor", watched]).exit_code == 10
    assert entrypoints[-1].endswith(" --json --exit-code")
    CliRunner().invoke(app, ["submit", "curate", watched])
    assert entrypoints[-1].endswith(" --json")
