"""When a candidate passes, fails or is undecided: every rule of the gate, and how often it errs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from compass_ray import records
from compass_ray.errors import DataError
from compass_ray.gate.config import GateConfig
from compass_ray.gate.judge import Line, Verdict, judge

OLD, NEW = "aa" * 8, "bb" * 8
REFERENCE = np.array([500, 300, 200, 0])
"""Three clusters and the outlier bin."""
BYTES = 100


def config(**fields: Any) -> GateConfig:
    return GateConfig.model_validate({"resamples": 4000, **fields})


def losses(
    measures: str,
    gains: Sequence[float] | np.ndarray,
    *,
    lang: str | None = "sw",
    clusters: Sequence[int] | np.ndarray | None = None,
    blocks: Sequence[str | None] | None = None,
    contents: Sequence[int] | None = None,
) -> pa.Table:
    """Rows of both adapters whose gain on each document is given, in bits per byte."""
    rows = []
    for number, gain in enumerate(gains):
        content = number if contents is None else contents[number]
        shared = {
            "measures": measures,
            "target_lang": "sw",
            "lang": lang,
            "doc_id": blake2b(f"{measures} {lang} {content}".encode(), digest_size=16).digest(),
            "content_id": blake2b(f"{measures} {content}".encode(), digest_size=16).digest(),
            "cluster": None if clusters is None else int(clusters[number]),
            "block": None if blocks is None else blocks[number],
            "tokens": 30,
            "bytes": BYTES,
        }
        before = 60.0 + number % 7
        rows += [
            {**shared, "adapter": OLD, "nats": before},
            {**shared, "adapter": NEW, "nats": before - gain * BYTES * math.log(2)},
        ]
    return pa.Table.from_pylist(rows, records.LOSS)


def around(mean: float, documents: int = 120, spread: float = 0.03, seed: int = 0) -> np.ndarray:
    """Gains of exactly this mean."""
    noise = np.random.default_rng(seed).standard_normal(documents)
    return mean + spread * (noise - noise.mean())


def clusters_of(documents: int) -> np.ndarray:
    return np.arange(documents) % 3


BETTER = losses("new_usage", around(0.05, 212))
AS_GOOD = losses("former_usage", around(0.0), clusters=clusters_of(120))
ENGLISH = losses("other", around(-0.002), lang="en")


def judged(*tables: pa.Table, reference: np.ndarray | None = REFERENCE, seed: int = 0, **fields: Any) -> Verdict:
    return judge(pa.concat_tables(tables), reference, config(**fields), seed, champion=OLD, candidate=NEW)


def line(verdict: Verdict, about: str) -> Line:
    return next(each for each in verdict.lines if each.about == about)


# --- the whole ----------------------------------------------------------------------------------


def test_better_on_new_usage_and_no_worse_elsewhere_is_a_pass_that_says_what_was_found() -> None:
    verdict = judged(BETTER, AS_GOOD, ENGLISH)
    assert verdict.outcome == "pass"
    found = line(verdict, "new_usage").comparison
    assert found is not None
    assert [each.text for each in verdict.lines] == [
        f"new usage: 0.050 bits a byte better [{found.low:.3f}, {found.high:.3f}], 212 documents",
        verdict.lines[1].text,
        "clusters of former usage: none of 3 tested, worse than the margin beyond chance",
        verdict.lines[3].text,
    ]
    assert "120 documents; they cover 100% of reference usage; margin 0.02" in verdict.lines[1].text
    assert verdict.lines[3].text.startswith("other texts in 'en': 0.002 bits a byte worse [")
    assert {each.outcome for each in verdict.lines} == {"pass"}
    body = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert (body["outcome"], body["covered"], len(body["clusters"])) == ("pass", 1.0, 3)
    assert body["lines"][0]["comparison"]["documents"] == 212


@pytest.mark.parametrize(
    ("new", "former", "other", "outcome"),
    [
        (0.05, 0.0, 0.0, "pass"),
        (-0.05, 0.0, 0.0, "fail"),
        (0.0, 0.0, 0.0, "undecided"),
        (0.05, -0.05, 0.0, "fail"),
        (0.05, -0.02, 0.0, "undecided"),
        (0.05, 0.0, -0.05, "fail"),
        (0.05, 0.0, -0.02, "undecided"),
        (0.0, 0.0, -0.05, "fail"),
        (0.05, 0.05, 0.05, "pass"),
    ],
)
def test_one_failure_fails_and_a_pass_needs_all_that_were_tested(
    new: float, former: float, other: float, outcome: str
) -> None:
    verdict = judged(
        losses("new_usage", around(new)),
        losses("former_usage", around(former), clusters=np.zeros(120)),
        losses("other", around(other), lang="en"),
        min_cluster_documents=1000,
    )
    assert verdict.outcome == outcome


def test_without_new_or_former_usage_nothing_passes() -> None:
    empty = records.LOSS.empty_table()
    verdict = judged(empty)
    assert verdict.outcome == "undecided"
    assert [each.text for each in verdict.lines] == [
        "new usage: none, so nothing shows that the candidate is better",
        "former usage: none, so nothing shows that the candidate is no worse",
        "other texts: not tested, there are none (gate.texts)",
    ]
    assert judged(BETTER, ENGLISH).outcome == "undecided"
    assert judged(AS_GOOD, ENGLISH).outcome == "undecided"


def test_no_other_texts_are_said_and_stop_no_pass() -> None:
    verdict = judged(BETTER, AS_GOOD)
    assert verdict.outcome == "pass"
    assert (line(verdict, "other").outcome, line(verdict, "other").text) == (
        None,
        "other texts: not tested, there are none (gate.texts)",
    )


def test_other_texts_are_tested_by_language() -> None:
    french = losses("other", around(-0.06), lang="fr")
    verdict = judged(BETTER, AS_GOOD, ENGLISH, french)
    assert [(each.lang, each.outcome) for each in verdict.lines if each.about == "other"] == [
        ("en", "pass"),
        ("fr", "fail"),
    ]
    assert verdict.outcome == "fail"


# --- how many documents there are ---------------------------------------------------------------


@pytest.mark.parametrize("table", ["new_usage", "former_usage", "other"])
def test_few_documents_are_undecided_however_good_they_are(table: str) -> None:
    few = losses(table, around(0.05, 29, 0.001), clusters=clusters_of(29), lang="en" if table == "other" else "sw")
    rest = [each for each in (BETTER, AS_GOOD, ENGLISH) if each["measures"][0].as_py() != table]
    verdict = judged(few, *rest)
    assert verdict.outcome == "undecided"
    assert line(verdict, table).text.endswith("at least 30 are needed (gate.min_documents)")
    assert "29 documents" in line(verdict, table).text
    assert judged(few, *rest, min_documents=20).outcome == "pass"


def test_equal_content_is_one_document_however_often_it_was_measured() -> None:
    gains = around(0.05, 20, 0.001)
    verdict = judged(losses("new_usage", np.tile(gains, 10), contents=list(range(20)) * 10), AS_GOOD)
    assert line(verdict, "new_usage").outcome == "undecided"
    assert "20 documents; at least 30" in line(verdict, "new_usage").text


def test_documents_of_one_block_are_not_independent() -> None:
    gains = np.repeat([0.06, 0.0, 0.05, -0.01, 0.06, 0.04], 20) + around(0.0, 120, 0.001)
    apart = judged(losses("new_usage", gains), AS_GOOD)
    blocks = [str(number // 20) for number in range(120)]
    together = judged(losses("new_usage", gains, blocks=blocks), AS_GOOD)
    assert (line(apart, "new_usage").outcome, line(together, "new_usage").outcome) == ("pass", "undecided")
    assert line(together, "new_usage").text.endswith("120 documents in 6 blocks")


def test_what_comes_with_several_blocks_is_not_the_business_of_one() -> None:
    contents = [0, 1, 2, 0, 3, 4, 5]
    blocks = ["a", "a", "a", "b", "b", None, None]
    verdict = judged(losses("new_usage", around(0.05, 7), contents=contents, blocks=blocks), AS_GOOD)
    found = line(verdict, "new_usage").comparison
    assert found is not None
    assert (found.documents, found.blocks) == (6, 5)


def test_documents_that_gain_alike_prove_nothing() -> None:
    verdict = judged(losses("new_usage", [0.05] * 60), AS_GOOD)
    assert line(verdict, "new_usage").outcome == "undecided"
    assert "[unknown: too few blocks, or all documents alike]" in line(verdict, "new_usage").text
    one = judged(losses("new_usage", around(0.05), blocks=["a"] * 120), AS_GOOD)
    assert "[unknown: all of one block]" in line(one, "new_usage").text


# --- former usage -------------------------------------------------------------------------------


def test_former_usage_weighs_as_reference_usage_did() -> None:
    """Held-out documents are ten times as many in the cluster that a hundredth of usage is in."""
    clusters = np.repeat([0, 1], [60, 600])
    gains = np.concatenate([around(0.0, 60), around(-0.05, 600)])
    former = losses("former_usage", gains, clusters=clusters)
    by_reference = judged(BETTER, former, reference=np.array([99, 1, 0, 0]), min_cluster_documents=1000)
    found = line(by_reference, "former_usage").comparison
    assert found is not None
    assert found.mean == pytest.approx(-0.0005)
    assert by_reference.outcome == "pass"
    alike = judged(BETTER, former, reference=None, min_cluster_documents=1000)
    assert alike.outcome == "fail"
    assert "all documents weigh alike, since nothing is known of reference usage" in line(alike, "former_usage").text
    assert alike.covered is None


def test_the_share_of_the_reference_that_was_measured_is_told() -> None:
    former = losses("former_usage", around(0.0), clusters=np.zeros(120))
    verdict = judged(BETTER, former)
    assert verdict.covered == pytest.approx(0.5)
    assert "they cover 50% of reference usage" in line(verdict, "former_usage").text
    assert (verdict.outcome, line(verdict, "former_usage").outcome) == ("pass", "pass")
    strict = judged(BETTER, former, min_covered=0.6)
    assert (strict.outcome, line(strict, "former_usage").outcome) == ("undecided", "undecided")
    assert "at least 60% is needed (gate.min_covered)" in line(strict, "former_usage").text
    nowhere = judged(BETTER, losses("former_usage", around(0.0), clusters=np.full(120, 3)))
    assert (nowhere.outcome, nowhere.covered) == ("undecided", 0.0)
    assert "no document in a cluster that reference usage is in" in line(nowhere, "former_usage").text


def test_documents_that_count_as_few_by_their_weights_are_undecided() -> None:
    clusters = np.repeat([0, 1], [5, 200])
    former = losses("former_usage", around(0.0, 205, 0.001), clusters=clusters)
    verdict = judged(BETTER, former, reference=np.array([90, 10, 0, 0]))
    assert line(verdict, "former_usage").outcome == "undecided"
    assert "205 documents" in line(verdict, "former_usage").text
    assert "by their weights they count as 6; at least 30" in line(verdict, "former_usage").text


def test_a_cluster_that_becomes_worse_fails_the_gate_though_the_whole_does_not() -> None:
    clusters = np.repeat([0, 1, 2], [200, 200, 40])
    gains = np.concatenate([around(0.02, 200), around(0.02, 200), around(-0.08, 40)])
    former = losses("former_usage", gains, clusters=clusters)
    verdict = judged(BETTER, former, reference=np.array([50, 45, 5, 0]))
    assert line(verdict, "former_usage").outcome == "pass"
    assert verdict.outcome == "fail"
    assert [one.worse for one in verdict.clusters] == [False, False, True]
    texts = [each.text for each in verdict.lines if each.about == "clusters"]
    assert texts[0].startswith("former usage in cluster 2: 0.080 bits a byte worse [")
    assert texts[1] == "clusters of former usage: 1 of 3 tested, worse than the margin beyond chance"
    small = judged(BETTER, former, reference=np.array([50, 45, 5, 0]), min_cluster_documents=41)
    assert small.outcome == "pass"
    assert (small.clusters[2].documents, small.clusters[2].comparison) == (40, None)
    assert small.clusters[2].mean == pytest.approx(-0.08)


def test_chance_is_reckoned_over_all_clusters() -> None:
    """A cluster that is just worse alone is not beside 19 others."""
    gains = around(-0.034, 40, 0.04)
    alone = judged(BETTER, losses("former_usage", gains, clusters=np.zeros(40)), reference=np.array([1.0, 0.0]))
    p_value = alone.clusters[0].p_value
    assert p_value is not None
    assert 0.003 < p_value <= 0.05
    assert alone.clusters[0].worse
    many = np.concatenate([gains, *(around(0.0, 40, 0.04, seed) for seed in range(1, 20))])
    among = judged(BETTER, losses("former_usage", many, clusters=np.repeat(np.arange(20), 40)), reference=np.ones(21))
    assert among.clusters[0].p_value == pytest.approx(20 * p_value)
    assert not any(one.worse for one in among.clusters)


def test_former_usage_far_from_every_cluster_is_called_so() -> None:
    former = losses("former_usage", around(-0.1, 60), clusters=np.full(60, 3))
    verdict = judged(BETTER, AS_GOOD, reference=np.array([1, 1, 1, 1]))
    assert verdict.outcome == "pass"
    far = judged(BETTER, former, reference=np.array([1, 1, 1, 1]))
    assert any(each.text.startswith("former usage far from every cluster: 0.100") for each in far.lines)


# --- what is wrong with losses ------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_loss_that_is_no_number_fails_and_names_the_document(value: float | None) -> None:
    rows = BETTER.to_pylist()
    rows[3]["nats"] = value
    verdict = judged(pa.Table.from_pylist(rows, records.LOSS), AS_GOOD)
    assert verdict.outcome == "fail"
    assert verdict.lines[0].text.startswith(f"losses: not a number for {NEW} on document {rows[3]['doc_id'].hex()}")
    rows[9]["nats"] = rows[10]["nats"] = value
    verdict = judged(pa.Table.from_pylist(rows, records.LOSS), AS_GOOD)
    assert verdict.lines[0].text.endswith(", and 2 more")
    json.dumps(verdict.to_json(), allow_nan=False)


def test_documents_that_spell_nothing_are_left_out_and_counted() -> None:
    rows = BETTER.to_pylist()
    for row in rows[:4]:
        row["bytes"] = 0
    verdict = judged(pa.Table.from_pylist(rows, records.LOSS), AS_GOOD)
    assert verdict.outcome == "pass"
    assert verdict.lines[0].text == "losses: 2 documents are not tested, because their tokens spell nothing"
    assert "210 documents" in line(verdict, "new_usage").text


def test_documents_that_one_lacks_are_an_error_that_says_which() -> None:
    rows = BETTER.to_pylist()
    with pytest.raises(DataError, match=f"{NEW} lacks 1 documents, as {rows[1]['doc_id'].hex()} .new_usage.; a comp"):
        judged(pa.Table.from_pylist(rows[:1] + rows[2:], records.LOSS))
    with pytest.raises(DataError, match=f"{OLD} lacks 212 documents"):
        judged(pa.Table.from_pylist(rows[1::2], records.LOSS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bytes": 99}, f"has bytes 99 for {OLD} and bytes 100 for {NEW}; measure both in the same way"),
        ({"cluster": 1}, "has cluster 1 for"),
        ({"target_lang": "hi"}, "of several target languages, hi, sw"),
        ({"measures": "usage"}, "measure 'usage', expected new_usage, former_usage, other"),
    ],
)
def test_losses_that_were_not_measured_alike_are_refused(change: dict[str, Any], message: str) -> None:
    rows = BETTER.to_pylist()
    rows[0].update(change)
    with pytest.raises(DataError, match=message):
        judged(pa.Table.from_pylist(rows, records.LOSS))


def test_losses_of_others_are_passed_over_and_no_others_are_refused() -> None:
    base = BETTER.set_column(0, "adapter", pa.array(["base"] * len(BETTER)))
    assert judged(BETTER, AS_GOOD, base) == judged(BETTER, AS_GOOD)
    with pytest.raises(DataError, match=f"none of {OLD} or {NEW}, only of base"):
        judged(base)


@pytest.mark.parametrize(
    ("reference", "clusters", "message"),
    [
        (REFERENCE, None, "120 of 120 documents have no cluster"),
        (REFERENCE, np.full(120, 4), "clusters from 4 to 4, but the reference has 4 bins"),
        (np.zeros(4), np.zeros(120), "not negative and not all zero"),
        (np.array([1, -1]), np.zeros(120), "not negative and not all zero"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(
    reference: np.ndarray, clusters: np.ndarray | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        judged(losses("former_usage", around(0.0), clusters=clusters), reference=reference)


# --- laws ---------------------------------------------------------------------------------------

ORDER = {"fail": 0, "undecided": 1, "pass": 2}


@given(mean=st.floats(-0.06, 0.02), seed=st.integers(0, 50), margins=st.tuples(*[st.floats(0.001, 0.08)] * 2))
@settings(max_examples=15, deadline=None)
def test_a_wider_margin_never_makes_a_verdict_worse(mean: float, seed: int, margins: tuple[float, float]) -> None:
    former = losses("former_usage", around(mean, 90, 0.05, seed), clusters=clusters_of(90))
    narrow, wide = (judged(BETTER, former, ENGLISH, margin=margin).outcome for margin in sorted(margins))
    assert ORDER[narrow] <= ORDER[wide]


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_the_order_of_rows_does_not_matter(seed: int) -> None:
    table = pa.concat_tables([BETTER, AS_GOOD, ENGLISH])
    order = np.random.default_rng(seed).permutation(len(table))
    assert judged(table.take(pa.array(order))).to_json() == judged(table).to_json()


@given(times=st.integers(2, 4))
@settings(max_examples=3, deadline=None)
def test_documents_that_were_all_measured_several_times_change_no_interval(times: int) -> None:
    once = [
        losses("new_usage", around(0.02, 50), blocks=[str(n // 3) if n % 2 else None for n in range(50)]),
        losses("former_usage", around(0.0, 60), clusters=np.repeat([0, 1], [20, 40])),
    ]
    one, several = judged(*once), judged(*once * times)
    for mine, theirs in zip(one.lines, several.lines, strict=True):
        assert mine.text == theirs.text
        if mine.comparison is not None and theirs.comparison is not None:
            assert theirs.comparison.low == pytest.approx(mine.comparison.low, abs=1e-9)
            assert theirs.comparison.high == pytest.approx(mine.comparison.high, abs=1e-9)


def test_verdicts_follow_from_the_seed() -> None:
    assert judged(BETTER, AS_GOOD, seed=1) == judged(BETTER, AS_GOOD, seed=1)
    assert judged(BETTER, AS_GOOD, seed=1) != judged(BETTER, AS_GOOD, seed=2)


# --- how often it errs --------------------------------------------------------------------------


def outcomes(mean: float, kind: str, runs: int, documents: int = 60) -> list[str | None]:
    """Outcomes on former usage whose gain is so large in truth."""
    found = []
    for number in range(runs):
        rng = np.random.default_rng(number)
        noise = rng.standard_normal(documents) if kind == "normal" else 1 - rng.exponential(1, documents)
        former = losses("former_usage", mean + 0.04 * noise, clusters=clusters_of(documents))
        verdict = judged(former, min_cluster_documents=1000, seed=number)
        found.append(line(verdict, "former_usage").outcome)
    return found


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_a_candidate_that_is_worse_by_the_margin_passes_in_one_case_of_twenty_at_most(kind: str) -> None:
    """Skewed: a few documents become much worse, the wrong way for a gate."""
    assert outcomes(-0.02, kind, 400).count("pass") <= 20


def test_a_candidate_that_is_as_good_mostly_passes_and_one_that_is_much_worse_mostly_fails() -> None:
    assert outcomes(0.0, "normal", 40).count("pass") >= 36
    assert outcomes(-0.05, "normal", 40).count("fail") >= 36


# --- the config ---------------------------------------------------------------------------------


def test_texts_are_described_as_sources_are() -> None:
    made = GateConfig.model_validate({"texts": {"english": {"path": "en.jsonl", "lang": "en"}}})
    assert made.texts["english"].lang == "en"
    assert (made.margin, made.min_documents, made.min_cluster_documents, made.confidence) == (0.02, 30, 30, 0.95)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"margin": 0}, "greater than 0"),
        ({"margin": math.inf}, "finite number"),
        ({"confidence": 1.0}, "less than or equal to 0.999"),
        ({"texts": {"en": {"path": "x", "lang": "en", "role": "pool"}}}, "Input should be 'usage'"),
        ({"texts": {"../en": {"path": "x", "lang": "en"}}}, "should match pattern"),
    ],
)
def test_a_config_that_proves_nothing_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        GateConfig.model_validate(fields)
