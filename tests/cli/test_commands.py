"""Commands as a user runs them: exit codes, stdout for results, stderr for the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from demo import DEMO, demo_config
from processes import clean_environment


def _command(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compass_ray", *arguments],
        env=clean_environment(home, **variables),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=400,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_ends_with_gaps_certificate_and_adapters_and_reuses_all_the_second_time(tmp_path: Path) -> None:
    short = ("--set", "adapt.training.epochs=1")
    first = _command(tmp_path, "demo", "--output", "here", *short)
    assert first.returncode == 0, first.stderr
    assert "Largest deficits of Swahili (sw)" in first.stdout
    assert "Certificate: distance of training data" in first.stdout
    assert f"run: {tmp_path}/here/runs/demo" in first.stdout
    assert "Adapters on base: held-out text" in first.stdout
    assert first.stdout.rstrip().endswith(f"registry: {tmp_path}/here/registry")
    again = _command(tmp_path, "demo", "--output", "here", "--json", *short)
    assert again.returncode == 0, again.stderr
    stages = [line.split()[0] for line in again.stderr.splitlines() if line.endswith("reused")]
    assert stages == [
        "layouts", "ingest", "quarantine", "embed", "codebook", "meaning", "assign", "near_usage", "sample", "select",
        "usage", "gather", "tokenize", "adapter-sw", "scores-sw", "adapter-ta", "scores-ta", "place", "usage_vectors",
        "usage_sample",
    ]  # fmt: skip
    body = json.loads(again.stdout)
    assert body["selected"] == {"hi": 40, "sw": 40, "ta": 40}
    assert all(stage["reused"] for stage in body["stages"])
    assert list(body["adapters"]["languages"]) == ["sw", "ta"]
    for lang, adapter in body["adapters"]["languages"].items():
        scores = adapter["scores"]["heldout"]
        assert [row["measures"] for row in scores] == ["usage", "mixture", "other"]
        usage = scores[0]
        assert usage["lang"] == lang
        assert usage["documents"] == usage["in_language"] == body["certificate"][lang]["heldout_documents"]
        assert usage["perplexity"] < usage["base_perplexity"]


def test_config_check_says_all_that_is_wrong_and_exits_2(tmp_path: Path) -> None:
    bad = {
        "output": "x",
        "sources": {"a": {"role": "pool", "path": "p", "lang": "klingonish"}},
        "sample": {"budget": 0},
    }
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**bad, "clutser": {}}))
    done = _command(tmp_path, "config", "check", "bad.yaml")
    assert done.returncode == 2
    for complaint in ("sources.a.lang: ", "sample.budget: ", "clutser: Extra inputs are not permitted", "3 problem(s)"):
        assert complaint in done.stderr
    assert done.stdout == ""


def test_config_show_fills_in_defaults_and_can_be_read_again(tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(demo_config("out").unexpanded))
    done = _command(tmp_path, "config", "show", str(path), "--set", "cluster.n_clusters=9")
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)
    assert shown["cluster"]["n_clusters"] == 9
    assert shown["embed"]["batch_tokens"] == 16384
    path.write_text(done.stdout)
    assert _command(tmp_path, "config", "check", str(path)).returncode == 0


def test_config_schema_is_json_schema(tmp_path: Path) -> None:
    schema = json.loads(_command(tmp_path, "config", "schema").stdout)
    assert set(schema["properties"]) >= {"output", "sources", "embed", "cluster", "sample"}


@pytest.mark.parametrize(
    ("override", "code", "message"),
    [
        ("sources.usage.path=nowhere.tsv", 3, "sources.usage.path: no file matches nowhere.tsv"),
        ("embed.model=./no-such-model", 2, "embed.model: './no-such-model' is neither"),
        ("ray.address=127.0.0.1:1", 4, "ray.address: no cluster answers at 127.0.0.1:1"),
        ("cluster.device=gpu", 4, "pip install 'compass_ray[gpu]'"),
        ("sample.strategy=best", 2, "sample.strategy"),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(tmp_path: Path, override: str, code: int, message: str) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text(yaml.safe_dump(demo_config("out").unexpanded))
    done = _command(tmp_path, "curate", str(path), "--set", override)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_demo_corpus_is_what_the_readme_says() -> None:
    texts, languages = set(), set()
    for path in DEMO.glob("pool/*.jsonl"):
        languages.add(path.name.split(".")[0])
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                texts.add(str(row.get("text") or row.get("prompt")))
    languages |= {path.stem for path in DEMO.glob("pool/*.csv")}
    assert len(languages) == 12
    assert len(texts) > 900
