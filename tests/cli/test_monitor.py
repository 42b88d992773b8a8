"""``compass-ray monitor`` as a user runs it: what it prints, and the exit code that a scheduler acts on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from demo import demo_config
from typer.testing import CliRunner

from compass_ray import CurationRun
from compass_ray.cli import app
from compass_ray.errors import ConfigError


@pytest.fixture
def config(finished_demo: CurationRun, tmp_path: Path) -> Path:
    """The demo's config, with new usage that is one Swahili question over and over."""
    log = tmp_path / "log.jsonl"
    texts = [f"Bei ya [bold]dhahabu[/bold] leo sokoni ni shilingi {number}?" for number in range(60)]
    log.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    output = Path(finished_demo.path).parent.parent
    usage = {"log": {"path": str(log), "lang": "sw"}}
    section = {"usage": usage, "reference": finished_demo.path, "min_documents": 20, "min_reference": 50}
    path = tmp_path / "watched.yaml"
    path.write_text(yaml.safe_dump(demo_config(output, "name=watched", f"monitor={json.dumps(section)}").unexpanded))
    return path


@pytest.mark.usefixtures("local_ray")
def test_it_prints_what_has_moved_and_exits_with_ten_only_if_asked_to(config: Path) -> None:
    told = CliRunner().invoke(app, ["monitor", str(config)])
    assert told.exit_code == 0, told.output
    assert "Swahili (sw)" in told.stdout
    assert "Where usage of Swahili (sw) has moved" in told.stdout
    assert "Bei ya [bold]dhahabu[/bold] leo" in told.stdout  # text is text
    assert "no new usage in 'ta'" in told.stdout
    assert CliRunner().invoke(app, ["monitor", str(config), "--exit-code"]).exit_code == 10


@pytest.mark.usefixtures("local_ray")
def test_usage_that_cannot_be_judged_is_no_drift(config: Path) -> None:
    arguments = ["monitor", str(config), "--exit-code", "--json", "--set", "monitor.min_documents=61"]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    body = json.loads(told.stdout)
    assert {target_lang: found["verdict"] for target_lang, found in body["target_langs"].items()} == dict.fromkeys(
        ("hi", "sw", "ta"), "insufficient"
    )
    assert body["target_langs"]["sw"]["notes"] == [
        "1 of 1 windows hold fewer than 61 documents (monitor.min_documents)"
    ]


@pytest.mark.usefixtures("local_ray")
def test_usage_in_a_language_of_which_nothing_is_known_exits_with_eleven_if_asked_to(config: Path) -> None:
    told = CliRunner().invoke(app, ["monitor", str(config), "--set", "monitor.usage.log.lang=pl", "--exit-code"])
    assert told.exit_code == 11, told.output
    assert "nothing is known of reference usage in 'pl'" in told.stdout


def test_a_config_without_the_section_says_what_to_give(tmp_path: Path) -> None:
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump(demo_config(tmp_path).unexpanded))
    told = CliRunner().invoke(app, ["monitor", str(path)])
    assert isinstance(told.exception, ConfigError)
    assert "monitor: this command needs the section; give at least monitor.usage" in str(told.exception)
