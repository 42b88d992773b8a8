"""When windows of usage make a drift: two keys, chance over all target languages, and persistence over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from compass_ray import records
from compass_ray.monitor.config import MonitorConfig
from compass_ray.monitor.judge import Reference, comparable, judge
from compass_ray.monitor.separation import Separation

REFERENCE = np.array([400, 300, 200, 100, 0, 10])
"""Five clusters, of which usage leaves one empty, and the outlier bin."""
SAME = REFERENCE // 5
ELSEWHERE = np.array([20, 20, 20, 20, 120, 2])
FAR = np.array([70, 52, 34, 18, 0, 26])
A_LITTLE = np.array([340, 340, 220, 100, 0, 10]) * 10


def config(**fields: Any) -> MonitorConfig:
    return MonitorConfig.model_validate({"usage": {"log": {"path": "usage.jsonl", "lang": "sw"}}, **fields})


OVER = datetime(2026, 12, 1, tzinfo=UTC)
"""After all windows of a test."""


def windows(target_lang: str, *counts: Sequence[int] | np.ndarray, day: int = 0) -> pa.Table:
    """One window for each histogram, a day apart; of ``day`` 0 the only one has no start."""
    rows = [
        {
            "target_lang": target_lang,
            "start": datetime(2026, 11, day + number, tzinfo=UTC) if day else None,
            "cluster": cluster,
            "documents": int(documents),
            "similarity": 0.5,
            "exemplar": f"of cluster {cluster}",
        }
        for number, histogram in enumerate(counts)
        for cluster, documents in enumerate(histogram)
        if documents
    ]
    return pa.Table.from_pylist(rows, records.WINDOW)


def verdict_of(*counts: Sequence[int] | np.ndarray, day: int = 0, **fields: Any) -> str:
    judged = judge(windows("sw", *counts, day=day), {"sw": Reference("run", REFERENCE)}, config(**fields), 0)
    return str(judged["sw"]["verdict"])


def test_the_same_usage_is_stable_and_another_a_drift_that_says_where() -> None:
    assert verdict_of(SAME) == "stable"
    reference = Reference("runs/demo", REFERENCE, {4: "pesa · benki"})
    told = judge(windows("sw", ELSEWHERE), {"sw": reference}, config(), 0)["sw"]
    assert (told["verdict"], told["reference"], told["reference_documents"]) == ("drift", "runs/demo", 1010)
    [window] = told["windows"]
    assert window["divergence"]["low"] > 0.05
    first = window["clusters"][0]
    assert (first["cluster"], first["label"], first["exemplar"]) == (4, "pesa · benki", "of cluster 4")
    assert (first["share_before"], first["share"]) == (0, pytest.approx(120 / 202, abs=1e-6))
    assert [row["bits"] for row in window["clusters"]] == sorted((r["bits"] for r in window["clusters"]), reverse=True)


def test_a_difference_that_is_certain_but_small_is_no_drift() -> None:
    many = Reference("run", REFERENCE * 10)
    [window] = judge(windows("sw", A_LITTLE), {"sw": many}, config(), 0)["sw"]["windows"]
    assert window["divergence"]["p_value"] < 0.001
    assert window["verdict"] == "stable"
    assert verdict_of(A_LITTLE, min_divergence=0.0) == "drift"


def test_a_difference_that_may_be_chance_is_no_drift_however_low_the_floor() -> None:
    assert verdict_of(SAME, min_divergence=0.0, min_novelty=0.0) == "stable"


def test_documents_far_from_every_cluster_are_a_drift_by_themselves() -> None:
    told = judge(windows("sw", FAR), {"sw": Reference("run", REFERENCE)}, config(min_divergence=0.5), 0)["sw"]
    assert told["verdict"] == "drift"
    assert told["windows"][0]["novelty"]["low"] > 0.05
    assert told["windows"][0]["clusters"][0]["label"] == "far from every cluster"
    assert verdict_of(FAR, min_divergence=0.5, min_novelty=0.2) == "stable"


def test_few_documents_are_insufficient_and_never_stable() -> None:
    few = SAME // 10
    told = judge(windows("sw", few), {"sw": Reference("run", REFERENCE)}, config(), 0)["sw"]
    assert told["verdict"] == "insufficient"
    assert told["windows"][0]["divergence"] is None
    assert told["notes"] == ["1 of 1 windows hold fewer than 100 documents (monitor.min_documents)"]
    poor = judge(windows("sw", ELSEWHERE), {"sw": Reference("run", SAME // 2)}, config(), 0)["sw"]
    assert poor["verdict"] == "insufficient"
    assert "101 documents of reference usage are too few" in poor["notes"][0]


def test_target_languages_without_former_or_without_new_usage_are_insufficient_and_told_why() -> None:
    judged = judge(windows("am", ELSEWHERE), {"sw": Reference("run", REFERENCE)}, config(), 0)
    assert [judged[target_lang]["verdict"] for target_lang in ("am", "sw")] == ["insufficient", "insufficient"]
    assert "nothing is known of reference usage in 'am'" in judged["am"]["notes"][0]
    assert judged["am"]["windows"][0]["documents"] == ELSEWHERE.sum()
    assert judged["sw"]["notes"] == ["no new usage in 'sw'"]


def test_chance_is_reckoned_over_all_target_languages_of_a_window() -> None:
    """One borderline target language alone is an alarm; beside forty that have not moved it is not."""
    borderline = np.array([105, 40, 34, 18, 0, 2])
    alone = judge(windows("o0", borderline), {"o0": Reference("run", REFERENCE)}, config(min_divergence=0.0), 0)
    p_value = alone["o0"]["windows"][0]["divergence"]["p_value"]
    assert 0.005 < p_value <= 0.025
    assert alone["o0"]["verdict"] == "drift"
    names = [f"o{number}" for number in range(41)]
    table = pa.concat_tables([windows("o0", borderline), *(windows(name, SAME) for name in names[1:])])
    references = dict.fromkeys(names, Reference("run", REFERENCE))
    judged = judge(table, references, config(min_divergence=0.0), 0)
    assert judged["o0"]["windows"][0]["divergence"]["p_value"] == p_value
    assert {told["verdict"] for told in judged.values()} == {"stable"}


def test_a_lone_drift_among_two_hundred_languages_is_seen() -> None:
    """Of 600 tests the first has to reach 1/12,000, and 4,999 permutations end at 1/5,000."""
    names = [f"o{number}" for number in range(200)]
    table = pa.concat_tables([windows("o0", ELSEWHERE), *(windows(name, SAME) for name in names[1:])])
    references = dict.fromkeys(names, Reference("run", REFERENCE))
    separations = dict.fromkeys([(name, None) for name in names], Separation(0.5, 0.4, 0.6, 0.5))
    judged = judge(table, references, config(), 0, separations)
    assert [name for name in names if judged[name]["verdict"] == "drift"] == ["o0"]
    assert 0 < judged["o0"]["windows"][0]["divergence"]["p_value"] < 1e-6


def test_a_window_of_a_billion_documents_is_judged() -> None:
    many = 5_000_000
    assert verdict_of(SAME * many) == "stable"
    told = judge(windows("sw", ELSEWHERE * many), {"sw": Reference("run", REFERENCE * many)}, config(), 0)["sw"]
    assert told["verdict"] == "drift"
    assert told["windows"][0]["documents"] == 202 * many > 10**9
    assert 0 < told["windows"][0]["divergence"]["p_value"] < 1e-100
    assert verdict_of(FAR * many, min_divergence=0.5) == "drift"


APART = Separation(auc=0.7, low=0.62, high=0.78, p_value=0.0002)


def judged_with(found: Separation | None, **fields: Any) -> dict[str, Any]:
    separations = {} if found is None else {("sw", None): found}
    return judge(windows("sw", SAME), {"sw": Reference("run", REFERENCE)}, config(**fields), 0, separations)["sw"]


def test_usage_whose_vectors_can_be_told_apart_is_a_drift_though_its_clusters_are_the_same() -> None:
    told = judged_with(APART)
    assert told["verdict"] == "drift"
    assert told["windows"][0]["separation"] == {"auc": 0.7, "low": 0.62, "high": 0.78, "p_value": 0.0002}
    assert told["notes"] == []
    assert judged_with(APART, min_auc=0.63)["verdict"] == "stable"
    assert judged_with(replace(APART, p_value=0.1))["verdict"] == "stable"


def test_where_reference_usage_has_left_no_vectors_that_is_said() -> None:
    told = judged_with(None)
    assert (told["verdict"], told["windows"][0]["separation"]) == ("stable", None)
    assert told["notes"] == [
        "reference usage has left no vectors, so that clusters alone are compared: see docs/howto/monitor.md"
    ]


def test_the_test_of_vectors_is_in_the_family_of_the_others() -> None:
    """Significant beside one other test that is, and not beside two that are not."""
    borderline = replace(APART, p_value=0.03)
    assert judged_with(borderline)["verdict"] == "stable"
    elsewhere = judge(windows("sw", ELSEWHERE), {"sw": Reference("run", REFERENCE)}, config(min_divergence=0.9), 0)
    assert elsewhere["sw"]["verdict"] == "stable"
    both = judge(
        windows("sw", ELSEWHERE),
        {"sw": Reference("run", REFERENCE)},
        config(min_divergence=0.9),
        0,
        {("sw", None): borderline},
    )
    assert both["sw"]["verdict"] == "drift"


def test_windows_that_can_be_judged_are_those_with_enough_documents_on_both_sides() -> None:
    table = pa.concat_tables([windows("sw", SAME, SAME // 10, day=3), windows("am", SAME), windows("ta", SAME)])
    references = {"sw": Reference("run", REFERENCE), "ta": Reference("run", SAME // 2)}
    assert comparable(table, references, config()) == {("sw", datetime(2026, 11, 3, tzinfo=UTC)): SAME.sum()}


@pytest.mark.parametrize(
    ("days", "verdict"),
    [
        ([SAME, ELSEWHERE, SAME], "stable"),
        ([ELSEWHERE, SAME, ELSEWHERE], "drift"),
        ([ELSEWHERE, ELSEWHERE, SAME, SAME], "stable"),
        ([ELSEWHERE], "insufficient"),
        ([SAME, SAME], "stable"),
        ([ELSEWHERE, SAME // 10, SAME // 10, ELSEWHERE], "drift"),
    ],
)
def test_two_alarms_among_the_latest_three_windows_that_could_be_judged_make_a_drift(
    days: list[np.ndarray], verdict: str
) -> None:
    assert verdict_of(*days, day=1, period="day", alarms=2, among=3, as_of=OVER) == verdict


def told_of(*days: np.ndarray, made: datetime | None = None, **fields: Any) -> dict[str, Any]:
    """What is told of days from the first of November on."""
    reference = Reference("run", REFERENCE, made=made)
    return judge(windows("sw", *days, day=1), {"sw": reference}, config(period="day", **fields), 0)["sw"]


def test_a_window_that_is_not_over_is_not_judged_and_that_is_said() -> None:
    told = told_of(SAME, ELSEWHERE)
    assert [window["verdict"] for window in told["windows"]] == ["stable", "open"]
    assert told["windows"][1]["divergence"] is None
    assert told["verdict"] == "stable"
    assert any("not judged before it is over" in note for note in told["notes"])
    assert told_of(ELSEWHERE)["verdict"] == "insufficient"
    assert told_of(SAME, ELSEWHERE, SAME // 50)["verdict"] == "drift"  # one document of the next day ends it
    second, third = (datetime(2026, 11, day, tzinfo=UTC) for day in (2, 3))
    assert told_of(SAME, ELSEWHERE, as_of=third)["verdict"] == "drift"
    assert told_of(SAME, ELSEWHERE, as_of=third.replace(day=2, hour=23))["verdict"] == "stable"
    assert told_of(ELSEWHERE, as_of=second)["verdict"] == "drift"


def test_a_window_of_any_language_ends_those_before_it() -> None:
    both = pa.concat_tables([windows("sw", ELSEWHERE, day=1), windows("ta", SAME, day=2)])
    references = dict.fromkeys(("sw", "ta"), Reference("run", REFERENCE))
    judged = judge(both, references, config(period="day"), 0)
    assert [judged[lang]["windows"][0]["verdict"] for lang in ("sw", "ta")] == ["drift", "open"]


def test_windows_too_old_do_not_count_large_or_small() -> None:
    few = SAME // 10
    days = (ELSEWHERE, few, few, few, few)
    assert told_of(*days)["verdict"] == "drift"
    told = told_of(*days, max_age=2)
    assert told["verdict"] == "insufficient"
    assert [window["verdict"] for window in told["windows"]] == ["stale", "stale", *["insufficient"] * 2, "open"]
    assert any(note.startswith("2 of 5 windows began more than 2 periods before") for note in told["notes"])
    assert told_of(*days, max_age=4)["verdict"] == "drift"
    assert told_of(ELSEWHERE, max_age=2, as_of=datetime(2026, 11, 3, 12, tzinfo=UTC))["verdict"] == "drift"
    assert told_of(ELSEWHERE, max_age=2, as_of=datetime(2026, 11, 4, tzinfo=UTC))["verdict"] == "insufficient"


def test_no_drift_is_declared_for_some_periods_after_the_adapter_was_made() -> None:
    made = datetime(2026, 11, 1, 15, tzinfo=UTC)
    assert told_of(SAME, ELSEWHERE, made=made, as_of=OVER)["verdict"] == "drift"
    told = told_of(ELSEWHERE, ELSEWHERE, made=made, cooldown=2, as_of=OVER, reference="champion")
    assert told["verdict"] == "cooldown"
    assert [window["verdict"] for window in told["windows"]] == ["drift", "drift"]
    assert any("began before 2026-11-03" in note and "made on 2026-11-01" in note for note in told["notes"])
    fields: dict[str, Any] = {"made": made, "as_of": OVER, "reference": "champion"}
    assert told_of(ELSEWHERE, ELSEWHERE, cooldown=1, **fields)["verdict"] == "drift"
    assert told_of(SAME, SAME, cooldown=2, **fields)["verdict"] == "stable"
    assert told_of(*[ELSEWHERE] * 2, cooldown=1, alarms=2, among=2, **fields)["verdict"] == "cooldown"


def test_a_language_whose_reference_cannot_be_used_is_insufficient_and_the_others_are_judged() -> None:
    both = pa.concat_tables([windows("sw", ELSEWHERE), windows("ta", ELSEWHERE)])
    told = judge(both, {"sw": Reference("run", REFERENCE)}, config(), 0, None, {"ta": "on two bases", "am": "no usage"})
    assert {lang: one["verdict"] for lang, one in told.items()} == {
        "am": "insufficient",
        "sw": "drift",
        "ta": "insufficient",
    }
    assert (told["ta"]["notes"], told["am"]["notes"]) == (["on two bases"], ["no usage"])


def test_the_answer_follows_from_the_seed_and_not_from_who_else_is_there() -> None:
    references = {"sw": Reference("run", REFERENCE), "ta": Reference("run", REFERENCE)}
    both = pa.concat_tables([windows("ta", SAME), windows("sw", ELSEWHERE)])
    alone = judge(windows("sw", ELSEWHERE), references, config(), 0)
    assert judge(both, references, config(), 0)["sw"] == alone["sw"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alarms": 3, "among": 2, "period": "day"}, "3 of the latest 2 windows"),
        ({"among": 2}, "among: needs several windows; set period to day, week or month"),
        ({"max_age": 2}, "max_age: needs several windows"),
        ({"cooldown": 2, "reference": "champion"}, "cooldown: needs several windows"),
        ({"cooldown": 2, "period": "day"}, "cooldown: is about adapters of a registry; set reference to champion"),
        ({"base": "x"}, "base: is about adapters of a registry"),
        ({"usage": {}}, "at least 1 item"),
        ({"usage": {"log": {"path": "x", "lang": "sw", "role": "pool"}}}, "Input should be 'usage'"),
    ],
)
def test_a_config_that_can_never_give_an_answer_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        config(**fields)
