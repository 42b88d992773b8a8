"""What an adapter is made from, and what its scores are made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training_data import ASKED, tokenized, written

from compass_ray import records
from compass_ray.adapt import data, stage
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.training.worker import Settings, Start
from compass_ray.models import BaseRef


def test_other_held_out_usage_is_another_score_of_the_same_adapter(tmp_path: Path, tiny_base: Path) -> None:
    jobs = []
    for name, asked in (("one", ASKED), ("other", [f"{text} leo" for text in ASKED])):
        corpus = written(tmp_path / name, asked, repeated=False)
        tokens = tokenized(corpus["gathered"], tiny_base, "sw", "ta", usage=corpus["usage"])
        assert data.counts_of(tokens, "sw")["usage"]["scored"]
        base = BaseRef("tiny", None, "0" * 32)
        adapt = Settings(AdaptConfig(base=str(tiny_base)), base, 0, 0, "test")
        session: Any = type("Session", (), {"output": str(tmp_path)})
        jobs.append({lang: stage._job(lang, tokens, ["sw", "ta"], adapt, tiny_base, session) for lang in ("sw", "ta")})
    one, other = jobs
    for lang in ("sw", "ta"):
        assert one[lang].adapter.fingerprint == other[lang].adapter.fingerprint
    assert one["sw"].scores.fingerprint != other["sw"].scores.fingerprint
    assert one["ta"].scores.fingerprint == other["ta"].scores.fingerprint
    assert [(each.measures, each.lang) for each in one["ta"].scored] == [
        ("usage", "ta"), ("mixture", "ta"), ("other", "sw"),
    ]  # fmt: skip
    assert tuple(dict.fromkeys(each.measures for each in one["sw"].scored)) == records.MEASURES


def test_what_a_training_starts_from_is_part_of_its_identity_if_there_is_any(tmp_path: Path, tiny_base: Path) -> None:
    corpus = written(tmp_path, ASKED, repeated=False)
    tokens = tokenized(corpus["gathered"], tiny_base, "sw", usage=corpus["usage"])
    adapt = Settings(AdaptConfig(base=str(tiny_base)), BaseRef("tiny", None, "0" * 32), 0, 0, "test")
    session: Any = type("Session", (), {"output": str(tmp_path)})
    fresh, one, other = (
        stage._job("sw", tokens, ["sw"], adapt, tiny_base, session, start)
        for start in (None, Start(b"weights"), Start(b"others"))
    )
    meant = stage._job("sw", tokens, ["sw"], adapt, tiny_base, session, purpose="other usage")
    assert not {"start", "purpose"} & fresh.adapter.identity.keys()
    assert meant.adapter.fingerprint != fresh.adapter.fingerprint, (
        "made for other usage, equal tokens are another version"
    )
    assert one.adapter.identity["start"] == Start(b"weights").identity()
    assert len({job.adapter.fingerprint for job in (fresh, one, other)}) == 3
    assert len({job.scores.fingerprint for job in (fresh, one, other)}) == 3
