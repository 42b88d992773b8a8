"""What is kept of a gate, and what a refusal says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

from compass_ray.errors import GateRefused
from compass_ray.gate.comparison import Comparison
from compass_ray.gate.config import GateConfig
from compass_ray.gate.judge import Line, Verdict
from compass_ray.gate.record import gate_record, record_name, refusal
from compass_ray.models import BaseRef
from compass_ray.registry.names import check_attached

FOUND = Comparison(0.031, 0.02, float("inf"), 212, 212.0, 212, 1.0)
WORSE = Line("former_usage", "fail", "former usage: 0.050 bits a byte worse [-0.060, -0.040]", None, FOUND)
BETTER = Line("new_usage", "pass", "new usage: 0.031 bits a byte better [0.020, inf], 212 documents", None, FOUND)


def record(when: datetime) -> bytes:
    return gate_record(
        Verdict("fail", (BETTER, WORSE), covered=0.9),
        GateConfig.model_validate({"texts": {"en": {"path": "en.jsonl", "lang": "en"}}}),
        base=BaseRef("acme/tiny", None, "0123456789abcdef"),
        champion="aa" * 8,
        candidate="bb" * 8,
        seed=7,
        when=when,
        who="ann",
        measured={"new_usage": "12ab"},
    )


def test_a_record_holds_all_that_a_verdict_followed_from() -> None:
    when = datetime(2026, 11, 30, 14, 5, 6, 789, tzinfo=timezone(timedelta(hours=2)))
    body = json.loads(record(when))
    assert (body["outcome"], body["when"], body["who"], body["seed"]) == ("fail", "2026-11-30T12:05:06+00:00", "ann", 7)
    assert (body["champion"], body["candidate"], body["measured"]) == ("aa" * 8, "bb" * 8, {"new_usage": "12ab"})
    assert body["base"] == {"key": "acme--tiny-01234567", "weights_hash": "0123456789abcdef"}
    assert body["config"] == {
        "margin": 0.02,
        "min_documents": 30,
        "min_cluster_documents": 30,
        "min_covered": 0.5,
        "confidence": 0.95,
        "resamples": 10_000,
    }
    assert [each["outcome"] for each in body["lines"]] == ["pass", "fail"]
    assert body["lines"][0]["comparison"]["high"] is None


def test_a_record_is_named_by_its_content_and_can_be_attached() -> None:
    one = record(datetime(2026, 11, 30, tzinfo=UTC))
    assert one == record(datetime(2026, 11, 30, tzinfo=UTC))
    names = {record_name(one), record_name(record(datetime(2026, 12, 1, tzinfo=UTC)))}
    assert len(names) == 2
    for name in names:
        assert check_attached(name).startswith("gate-")


def test_a_refusal_says_what_failed_by_how_much_and_what_next() -> None:
    error = refusal(Verdict("fail", (BETTER, WORSE)), champion="sw@aaaa", candidate="sw@bbbb")
    assert isinstance(error, GateRefused)
    assert error.exit_code == 6
    assert str(error).startswith(f"sw@bbbb: fails, and sw@aaaa stays champion: {WORSE.text}. Next: adapt again, with")
    few = Line("new_usage", "undecided", "new usage: 3 documents")
    undecided = refusal(Verdict("undecided", (few,)), champion="sw@aaaa", candidate="sw@bbbb")
    assert "is undecided" in str(undecided)
    assert "new usage: 3 documents. Next: hold out more documents" in str(undecided)
