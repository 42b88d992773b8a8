"""The examples of ``docs/extend.md``, taken as they stand there and added from outside."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.kinds import encoder_from
from compass_ray.embed.stage import encoder_identity
from compass_ray.embed.traits import ENCODERS
from compass_ray.ingest.config import SourceConfig
from compass_ray.ingest.files import read_units
from compass_ray.ingest.formats import FORMATS
from compass_ray.ingest.listing import list_source
from compass_ray.ingest.stage import read_unit
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import shares_of
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies import strategy_of
from compass_ray.sample.traits import TRAITS

PAGE = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
Add = Callable[[str], None]


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Add:
    """Do what a section of the page shows: write its module, and run what adds the row."""
    for table in (TRAITS, FORMATS, ENCODERS):
        for name in ("smallest", "srt", "letters"):
            monkeypatch.setitem(table, name, None)  # so that what the page adds is taken away again
            del table[name]
    monkeypatch.syspath_prepend(str(tmp_path))

    def added(title: str) -> None:
        section = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
        assert section is not None
        module, row = re.findall(r"^```python\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)
        (tmp_path / module.split("\n")[0].removeprefix("# ")).write_text(module, encoding="utf-8")
        exec(compile(row, title, "exec"), {})  # noqa: S102 the page is ours

    return added


def problem(capacity: list[list[int]]) -> Problem:
    held, usage = np.array(capacity), np.array([5, 3])
    counts = np.append(usage, 0)
    fields: dict[str, Any] = {"target_lang": "sw", "languages": ("en", "rw", "sw"), "usage": counts, "heldout": counts}
    fields |= {"current": counts * 0, "current_tokens": counts * 0, "capacity": held, "capacity_tokens": 9 * held}
    fields |= {"other_usage": usage * 0, "usage_tokens": 9 * usage, "distance": 1.0 - np.eye(2)}
    return Problem(**fields, soft_counts=usage.astype(float), own_soft_counts=usage.astype(float))


def test_a_strategy_is_a_module_and_a_row(add: Add) -> None:
    with pytest.raises(ValueError, match=r"Input should be 'kl', .* or 'dsir'"):
        SampleConfig(strategy="smallest", budget=20)
    add("A strategy")
    config = SampleConfig(strategy="smallest", budget=20)
    assert not config.has_cluster_quotas
    asked = problem([[60, 4, 20], [40, 0, 20]])
    quotas = strategy_of("smallest").quotas(asked, shares_of(asked), config)
    assert quotas.tolist() == [5, 4, 11], "all 4 of the smallest; 16 more by 1/100 and 1/40"
    with pytest.raises(ValueError, match="language_prior needs a strategy with cluster quotas"):
        SampleConfig(strategy="smallest", budget=20, language_prior="near")


def test_a_format_is_a_reader_and_a_row(add: Add, tmp_path: Path) -> None:
    cues = "\r\n\r\n".join(["1\r\n00:01\r\nHabari\r\nya asubuhi", "2\r\n00:03", "3\r\n00:05\r\nNzuri"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "one.srt.gz").write_bytes(gzip.compress(cues.encode()))
    given: dict[str, Any] = {"role": "pool", "path": str(tmp_path / "data"), "lang": "sw", "columns": {"text": "text"}}
    with pytest.raises(ValueError, match=r"Input should be 'auto', 'jsonl', .* or 'markdown'"):
        SourceConfig(**given, format="srt")
    add("A file format")
    source = SourceConfig(**given)
    files = list_source("films", source).files
    (unit,) = read_units({"films": files}, 1 << 20)
    rows = [
        row for table in read_unit(unit, {"films": source}, "prompt", 1, frozenset({0})) for row in table.to_pylist()
    ]
    assert [row["text"] for row in rows if row["reject"] is None] == ["Habari ya asubuhi", "Nzuri"]
    assert [row["reject"]["reason"] for row in rows if row["reject"] is not None] == ["no_text"]


def test_an_encoder_is_a_module_and_a_row(add: Add) -> None:
    add("An encoder")
    config = EmbedConfig(model="letters")
    encoder = encoder_from(config)
    vectors = encoder.encode(encoder.tokenize(["Maji", "ajim", "?"]).inputs)
    assert vectors.shape == (3, encoder.dim)
    assert vectors[0].tolist() == vectors[1].tolist()
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3))
    assert encoder_identity(config)["revision"] == encoder.revision
    with pytest.raises(ValueError, match="max_tokens: not read where model is 'letters'"):
        EmbedConfig(model="letters", max_tokens=5)
