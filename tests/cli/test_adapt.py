"""``compass-ray adapt`` as a user runs it: exit codes that mean something, and a summary that says what failed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from demo import demo_config
from processes import clean_environment
from tiny_base import adapt_config


def run(home: Path, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compass_ray", "adapt", str(config), *arguments],
        env=clean_environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture
def config(tmp_path: Path, tiny_base: Path) -> Path:
    path = tmp_path / "adapted.yaml"
    path.write_text(yaml.safe_dump(adapt_config("out", tiny_base).unexpanded))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("adapt.base=./no-such-model", 2, "adapt.base: './no-such-model' is neither a folder that exists"),
        ("adapt.base=owner/name", 2, "adapt.revision: the hub model owner/name needs a commit"),
        ("adapt.workers.count=99", 4, "adapt.workers.count: 99 workers with 1 CPUs and 0 GPUs each do not fit"),
        ("adapt.workers.num_gpus=1", 4, "adapt.workers: one actor asks for num_cpus 1 and num_gpus 1"),
        ("adapt.chat_template=nowhere.jinja", 2, "adapt.chat_template: nowhere.jinja cannot be read"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_work(
    config: Path, tmp_path: Path, override: str, code: int, message: str
) -> None:
    done = run(tmp_path, config, "--set", override)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "cache").exists()


def test_a_config_without_the_section_says_what_to_give(tmp_path: Path) -> None:
    raw = {name: value for name, value in demo_config("out").unexpanded.items() if name != "adapt"}
    path = tmp_path / "plain.yaml"
    path.write_text(yaml.safe_dump(raw))
    done = run(tmp_path, path)
    assert done.returncode == 2
    assert "adapt: this command needs the section; give at least adapt.base" in done.stderr


def test_a_base_with_pickled_weights_is_refused(config: Path, tmp_path: Path) -> None:
    base = tmp_path / "pickled"
    base.mkdir()
    (base / "config.json").write_text("{}")
    (base / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    done = run(tmp_path, config, "--set", f"adapt.base={base}")
    assert done.returncode == 2
    assert "holds pickled weights (pytorch_model.bin), which can run code when loaded" in done.stderr


def test_nothing_to_train_on_is_never_a_silent_success(tmp_path: Path, tiny_base: Path) -> None:
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps({"q": f"swali la {n}"}) + "\n" for n in range(8)))
    source = {"role": "current", "path": "asked.jsonl", "columns": {"prompt": "q"}, "lang": "sw"}
    raw = {"output": "out", "sources": {"asked": source}, "adapt": {"base": str(tiny_base)}}
    (tmp_path / "asked.yaml").write_text(yaml.safe_dump(raw))
    done = run(tmp_path, tmp_path / "asked.yaml")
    assert done.returncode == 5, done.stderr
    assert "1 of 1 languages have no adapter" in done.stderr
    assert "sw: NothingTrained: sw: no token to train on is left of 8 documents" in done.stderr
    assert "8 × no_trainable_token" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_dry_run_says_what_a_worker_needs_and_writes_nothing(config: Path, tmp_path: Path) -> None:
    done = run(tmp_path, config, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["what"]: row["bytes"] for row in json.loads(done.stdout)}
    *parts, total = rows
    assert {"base, frozen", "optimizer state", "activations"} <= set(parts)
    assert max(rows[part] for part in parts) < rows[total] <= sum(rows[part] for part in parts)
    assert not (tmp_path / "out").exists()
