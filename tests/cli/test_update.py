"""``monitor``, ``update``, ``gate`` and ``registry`` as a scheduler runs them: what they print, and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from loop import Loop, states
from typer.testing import CliRunner

from compass_ray.cli import app
from compass_ray.errors import GateRefused

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.slow, pytest.mark.timeout(900)]

Command = Callable[..., Result]


@pytest.fixture(scope="module")
def place(champion_loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Loop:
    """A champion, and beside it a candidate that has unlearnt everything."""
    return champion_loop.copied(tmp_path_factory.mktemp("commands"))


@pytest.fixture(scope="module")
def command(place: Loop) -> Command:
    """``command("gate", "--json")`` on the config of usage that has moved."""
    path = place.output.parent / "watch.yaml"
    path.write_text(yaml.safe_dump(place.config("moved").unexpanded))
    return lambda name, *options: CliRunner().invoke(app, [name, str(path), *options])


@pytest.fixture(scope="module")
def updated(place: Loop, command: Command) -> dict[str, Any]:
    """What ``update --json`` prints of an update that is far too fast."""
    spoilt = ("--set", "update.method=naive", "--set", "adapt.training.learning_rate=1.0")
    told = command("update", "--json", *spoilt)
    assert told.exit_code == 0, told.output
    body: dict[str, Any] = json.loads(told.stdout)
    return body


def test_monitor_exits_with_ten_where_an_update_is_due(command: Command) -> None:
    told = command("monitor", "--json", "--exit-code")
    assert told.exit_code == 10, told.output
    assert json.loads(told.stdout)["target_langs"]["sw"]["verdict"] == "drift"


def test_update_prints_the_candidate_and_the_champion_that_it_goes_on_from(
    place: Loop, updated: dict[str, Any]
) -> None:
    champion, candidate = (place.registry.open(f"sw@{alias}") for alias in ("champion", "candidate"))
    assert set(updated) >= {"path", "method", "languages", "unchanged", "failed", "verdicts", "registry", "base"}
    assert (updated["method"], updated["verdicts"]["sw"], updated["failed"]) == ("naive", "drift", {})
    line = updated["languages"]["sw"]
    assert (line["version"], line["champion"]) == (candidate.lineage.version, champion.lineage.version)
    assert Path(updated["path"], "update.json").is_file()


def test_a_gate_that_moves_nothing_prints_every_line_and_exits_with_0(
    place: Loop, command: Command, updated: dict[str, Any]
) -> None:
    before = states(place)
    told = command("gate", "--json", "--no-promote")
    assert told.exit_code == 0, told.output
    line = json.loads(told.stdout)["languages"]["sw"]
    assert (line["outcome"], line["promoted"], line["candidate"]) == (
        "fail",
        False,
        updated["languages"]["sw"]["version"],
    )
    assert {each["about"] for each in line["lines"]} >= {"new_usage", "former_usage"}
    assert states(place) == before


@pytest.mark.usefixtures("updated")
def test_a_refusal_exits_with_6_after_it_has_printed_what_was_found(place: Loop, command: Command) -> None:
    before = states(place)
    as_json, as_table = command("gate", "--json"), command("gate")
    for told in (as_json, as_table):
        assert isinstance(told.exception, GateRefused), told.output
        assert told.exception.exit_code == 6
        assert "stays champion" in str(told.exception)
    assert json.loads(as_json.stdout)["languages"]["sw"]["outcome"] == "fail"
    assert "Swahili (sw): fail: candidate" in as_table.stdout
    assert "  fail: " in as_table.stdout
    assert states(place) == before


@pytest.mark.usefixtures("updated")
def test_a_rollback_brings_the_former_champion_back(place: Loop) -> None:
    url = place.registry.url
    champion, candidate = (place.registry.open(f"sw@{alias}").lineage for alias in ("champion", "candidate"))
    assert CliRunner().invoke(app, ["registry", "promote", url, "sw@candidate"]).exit_code == 0
    assert place.registry.open("sw@champion").lineage == candidate
    told = CliRunner().invoke(app, ["registry", "rollback", url, "sw"])
    assert told.exit_code == 0, told.output
    assert place.registry.open("sw@champion").lineage == champion
    assert place.registry.open("sw@previous").lineage == candidate


def test_an_update_that_is_not_due_says_why_and_exits_with_0(place: Loop, command: Command) -> None:
    before = states(place)
    same = json.dumps(str(place.files / "same.jsonl"))
    told = command("update", "--set", f"monitor.usage.log.path={same}")
    assert told.exit_code == 0, told.output
    assert "sw: stays as it is: its usage has not drifted" in told.stdout
    assert "nothing was updated" in told.stdout
    assert states(place) == before
