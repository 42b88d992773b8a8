"""``compass-ray registry`` as a user runs it: exit codes, results on stdout, errors that say what to do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import clean_environment
from safetensors.numpy import save

from compass_ray.cli import main
from compass_ray.models import BaseRef
from compass_ray.registry.lineage import Lineage
from compass_ray.registry.store import Registry

BASE = BaseRef("acme/tiny", "c0ffee", "0123456789abcdef0123456789abcdef")
ONE, TWO = "1" * 16, "2" * 16


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a registry: one champion and one candidate for Swahili."""
    registry = Registry(str(tmp_path / "registry"))
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    for number, version in enumerate((ONE, TWO), start=1):
        tensors = {
            f"{module}.lora_A.weight": np.full((4, 6), number, np.float32),
            f"{module}.lora_B.weight": np.full((6, 4), number, np.float32),
        }
        config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
        history = Lineage(
            BASE, "sw", version, f"2026-01-0{number}T00:00:00+00:00", "0.1.0", scores={"loss": 1 / number}
        )
        registry.add(
            history, {"adapter_config.json": json.dumps(config).encode(), "adapter_model.safetensors": save(tensors)}
        )
    registry.promote(f"sw@{ONE}")
    registry.set_candidate(BASE.key, "sw", TWO)
    return tmp_path


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "compass_ray", "registry", *arguments],
        env=clean_environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_list_and_show_print_tables_or_json(home: Path) -> None:
    listed = run(home, "list", "registry", "--json")
    assert listed.returncode == 0, listed.stderr
    assert [(row["version"], row["aliases"]) for row in json.loads(listed.stdout)] == [
        (ONE, ["champion"]),
        (TWO, ["candidate"]),
    ]
    table = run(home, "list", "registry").stdout
    assert "Swahili (sw)" in table
    assert BASE.key in table
    shown = json.loads(run(home, "show", "registry", "sw@candidate", "--json").stdout)
    assert (shown["version"], shown["base"]["weights_hash"], shown["scores"]) == (TWO, BASE.weights_hash, {"loss": 0.5})
    text = run(home, "show", "registry", "sw").stdout
    for fact in (f"Swahili adapter {ONE}", "acme/tiny at c0ffee, weights 0123456789abcdef", "score: loss", "README.md"):
        assert fact in text


def test_promote_and_rollback_print_where_the_aliases_are(home: Path) -> None:
    promoted = run(home, "promote", "registry", "sw@candidate")
    assert promoted.stdout == f"{BASE.key}/sw: champion {TWO}, previous {ONE} (generation 3)\n"
    back = run(home, "rollback", "registry", "sw")
    assert back.stdout == f"{BASE.key}/sw: champion {ONE}, previous {TWO} (generation 4)\n"


def test_an_adapter_is_exported_for_vllm_without_its_base(home: Path) -> None:
    done = run(home, "export", "registry", "sw", "--format", "vllm", "--output", "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{BASE.key}/sw@{ONE} -> out (vllm by exact, rank 8)\n"
    config = json.loads((home / "out" / "adapter_config.json").read_bytes())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (8, 16, "acme/tiny")
    as_json = run(home, "export", "registry", "sw@candidate", "--output", "copy", "--json")
    assert json.loads(as_json.stdout) == {
        "path": "copy",
        "adapter": f"{BASE.key}/sw@{TWO}",
        "format": "peft",
        "method": "copy",
        "rank": None,
        "agreement": None,
    }


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("show", "registry", "hi"), 1, f"has no adapter of 'hi'; there is {BASE.key}/sw"),
        (("show", "registry", "../../etc@champion"), 1, "the form is [BASE/]LANG[@REF]"),
        (("rollback", "registry", "sw"), 1, "there is no previous champion to return to"),
        (("rollback", "registry", "sw@champion"), 2, "give [BASE/]LANG alone"),
        (("export", "registry", "sw", "--output", "registry"), 2, "--output registry: is there already"),
        (("export", "registry", "sw", "--output", "s3://b/k"), 2, "exports are written to a local folder"),
        (
            ("export", "registry", "sw", "--output", "x", "--base", "./none"),
            2,
            "export.base: './none' is neither a folder",
        ),
        (("export", "registry", "sw", "--output", "x", "--format", "gguf"), 2, "gguf"),
        (("list", "gs://bucket"), 2, "'gs://' can be read, not written"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_exit_code(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    complaint: str,
) -> None:
    monkeypatch.chdir(home)
    monkeypatch.setattr(sys, "argv", ["compass-ray", "registry", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (code, "")
    assert complaint in said.err
