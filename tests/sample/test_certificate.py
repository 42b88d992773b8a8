"""The certificate: before, after and random, on usage nobody has used."""

from __future__ import annotations

import json

import numpy as np
import pytest

from compass_ray.divergence import jsd
from compass_ray.sample.allocation import hypergeometric_quotas
from compass_ray.sample.certificate import HeldOut, certify, divergence, over_random, random_divergence, reduction
from compass_ray.usage_shares import effective_number

HELDOUT = np.array([40, 30, 20, 10, 2])
CURRENT = np.array([5, 5, 20, 70, 1])
CAPACITY = np.array([500, 500, 500, 2500, 0])
TOWARDS = np.array([75, 55, 20, 0, 0])  # with CURRENT: 80, 60, 40, 70


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def shares(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum()


NOTHING = np.zeros(5, dtype=np.int64)
ASKED, NOBODY = HeldOut.distinct(HELDOUT), HeldOut.distinct(NOTHING)
NO_CURRENT = "no current data: there is no divergence before the selection"
NO_HELDOUT = "no held-out usage documents: raise holdout_fraction or add usage"


def test_a_good_selection_comes_nearer_to_usage_than_before_and_than_random() -> None:
    body = certify(ASKED, CURRENT, TOWARDS, CAPACITY, rng())
    assert body["after"]["jsd"] < body["random"]["jsd"] < body["before"]["jsd"]
    assert body["after"]["high"] < body["before"]["low"]
    assert body["notes"] == []


def test_after_is_of_current_and_selection_together() -> None:
    body = certify(ASKED, CURRENT, TOWARDS, CAPACITY, rng())
    assert body["before"]["plugin"] == pytest.approx(float(jsd(shares(HELDOUT), shares(CURRENT))), abs=1e-6)
    assert body["after"]["plugin"] == pytest.approx(float(jsd(shares(HELDOUT), shares(CURRENT + TOWARDS))), abs=1e-6)


def test_counts_are_those_of_the_data() -> None:
    body = certify(ASKED, CURRENT, TOWARDS, CAPACITY, rng())
    assert [body[f"{name}_documents"] for name in ("heldout", "current", "selected")] == [102, 101, 150]


def test_without_current_data_there_is_no_before_and_this_is_said() -> None:
    body = certify(ASKED, NOTHING, TOWARDS, CAPACITY, rng())
    assert body["before"] is None
    assert body["after"]["plugin"] == pytest.approx(float(jsd(shares(HELDOUT), shares(TOWARDS))), abs=1e-6)
    assert body["notes"] == [NO_CURRENT]


@pytest.mark.parametrize("current", [NOTHING, CURRENT])
def test_a_selection_with_nothing_like_usage_is_said_to_be_one(current: np.ndarray) -> None:
    asked, drawn = HeldOut.distinct(np.array([9, 8, 0, 0, 0])), np.array([0, 0, 0, 40, 0])
    notes = certify(asked, current, drawn, drawn, rng())["notes"]
    assert (
        "no selected document lies in a cluster of held-out usage: the pool has nothing like it; widen the pool"
        in notes
    )


def test_without_held_out_usage_all_estimates_are_null_and_this_is_said() -> None:
    body = certify(NOBODY, CURRENT, TOWARDS, CAPACITY, rng())
    assert (body["before"], body["after"], body["random"]) == (None, None, None)
    assert body["notes"] == [NO_HELDOUT]
    assert certify(NOBODY, NOTHING, TOWARDS, CAPACITY, rng())["notes"] == [NO_CURRENT, NO_HELDOUT]


def test_the_certificate_is_plain_json_and_the_same_for_the_same_generator() -> None:
    one, two = (certify(ASKED, CURRENT, TOWARDS, CAPACITY, rng(5)) for _ in range(2))
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert one == two
    assert one != certify(ASKED, CURRENT, TOWARDS, CAPACITY, rng(6))


def test_selecting_the_whole_pool_leaves_random_no_choice() -> None:
    body = certify(ASKED, CURRENT, CAPACITY, CAPACITY, rng())
    assert body["random"]["jsd"] == pytest.approx(body["after"]["jsd"], abs=1e-6)
    assert body["random"]["low"] == body["random"]["high"]


def test_a_pool_of_billions_has_a_certificate() -> None:
    body = certify(ASKED, CURRENT, TOWARDS, CAPACITY * 10**6, rng())
    small = certify(ASKED, CURRENT, TOWARDS, CAPACITY, rng())
    assert body["random"]["jsd"] == pytest.approx(small["random"]["jsd"], abs=0.01)


def test_estimates_are_ordered_and_between_zero_and_one() -> None:
    for seed in range(20):
        random = rng(seed)
        heldout, training = random.integers(0, 9, 12), random.integers(0, 9, 12)
        estimate = divergence(HeldOut.distinct(heldout), training, rng(seed))
        assert 0 <= estimate.low <= estimate.high <= 1
        assert estimate.low <= estimate.jsd <= estimate.high
        assert 0 <= estimate.jsd <= estimate.plugin <= 1


def test_disjoint_data_are_one_bit_apart() -> None:
    estimate = divergence(HeldOut.distinct(np.array([50, 50, 0, 0])), np.array([0, 0, 3, 4]), rng())
    assert estimate.plugin == 1
    assert estimate.high == pytest.approx(estimate.jsd, abs=0.01)
    assert estimate.jsd == pytest.approx(1, abs=0.01)


def test_the_interval_covers_the_true_divergence_about_as_often_as_it_says() -> None:
    truth, training = rng(3).dirichlet(np.full(20, 2.0)), rng(4).integers(20, 200, 20)
    true_value = float(jsd(truth, shares(training)))
    covered = 0
    for seed in range(150):
        estimate = divergence(HeldOut.distinct(rng(1000 + seed).multinomial(200, truth)), training, rng(seed))
        covered += estimate.low <= true_value <= estimate.high
    assert covered / 150 >= 0.88


def test_the_interval_covers_also_where_usage_is_thin_over_many_clusters() -> None:
    """The design's own case: 285 questions, of which 85 are held out, over 100 clusters."""
    truth, other = rng(3).dirichlet(np.full(100, 0.5)), rng(4).dirichlet(np.full(100, 0.5))
    training = np.round(1e5 * (truth + other) / 2).astype(np.int64) + 1
    true_value = float(jsd(truth, shares(training)))
    estimates = [
        divergence(HeldOut.distinct(rng(2000 + seed).multinomial(85, truth)), training, rng(seed)) for seed in range(60)
    ]
    assert np.mean([estimate.low <= true_value <= estimate.high for estimate in estimates]) >= 0.9


def test_more_held_out_usage_narrows_the_interval() -> None:
    few, many = divergence(ASKED, CURRENT, rng()), divergence(HeldOut.distinct(HELDOUT * 25), CURRENT, rng())
    assert many.high - many.low < 0.3 * (few.high - few.low)


def test_random_is_the_mean_over_hypergeometric_draws_of_the_budget() -> None:
    estimate = random_divergence(ASKED, CURRENT, CAPACITY, 150, rng())
    expected = CURRENT + 150 * shares(CAPACITY)
    assert estimate.plugin == pytest.approx(float(jsd(shares(HELDOUT), shares(expected))), abs=0.01)
    assert estimate.low < estimate.jsd < estimate.high


@pytest.mark.parametrize("samples", [50, 85, 300])
@pytest.mark.parametrize("distance", [0.3, 0.8], ids=["near", "far"])
def test_the_correction_takes_away_most_of_the_mean_error(samples: int, distance: float) -> None:
    p, other = rng(1).dirichlet(np.full(30, 2.0)), rng(2).dirichlet(np.full(30, 2.0))
    training = np.round(1e6 * ((1 - distance) * p + distance * other)).astype(np.int64)
    true_value = float(jsd(p, shares(training)))
    estimates = [
        divergence(HeldOut.distinct(rng(seed).multinomial(samples, p)), training, rng(seed)) for seed in range(150)
    ]
    plugin_error = np.mean([estimate.plugin for estimate in estimates]) - true_value
    assert plugin_error > 0
    assert abs(np.mean([estimate.jsd for estimate in estimates]) - true_value) < 0.55 * plugin_error


def test_a_reduction_is_the_difference_of_two_divergences_with_a_narrower_interval_than_theirs() -> None:
    body = certify(ASKED, CURRENT, TOWARDS, CAPACITY, rng())
    found = body["reduction"]
    assert found["plugin"] == pytest.approx(body["before"]["plugin"] - body["after"]["plugin"], abs=1e-5)
    assert found["low"] <= found["jsd"] <= found["high"]
    assert found["low"] > 0
    assert body["reduction_over_random"]["low"] > 0
    widths = [body[name]["high"] - body[name]["low"] for name in ("before", "after")]
    assert found["high"] - found["low"] < np.hypot(*widths)


def test_a_selection_that_changes_nothing_reduces_nothing() -> None:
    found = reduction(ASKED, CURRENT, 3 * CURRENT, rng())
    assert (found.jsd, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-6)
    assert certify(ASKED, NOTHING, TOWARDS, CAPACITY, rng())["reduction"] is None


def test_a_selection_that_makes_things_worse_beyond_doubt_is_noted() -> None:
    away = np.array([0, 0, 0, 2000, 0])
    body = certify(ASKED, CURRENT, away, CAPACITY, rng())
    assert body["reduction"]["high"] < 0
    assert [note.partition(":")[0] for note in body["notes"]] == [
        "the selection takes training data farther from usage"
    ]


def test_the_interval_of_a_reduction_covers_the_true_one() -> None:
    truth = rng(3).dirichlet(np.full(30, 1.0))
    one, other = rng(4).dirichlet(np.full(30, 1.0)), 0.5 * truth + 0.5 * rng(5).dirichlet(np.full(30, 1.0))
    true_value = float(jsd(truth, one) - jsd(truth, other))
    found = [
        reduction(HeldOut.distinct(rng(3000 + seed).multinomial(300, truth)), one, other, rng(seed))
        for seed in range(100)
    ]
    assert np.mean([r.low <= true_value <= r.high for r in found]) >= 0.88


def test_a_random_selection_is_no_better_than_random() -> None:
    """The interval is of random draws too: of the expected one a draw that is small seems far."""
    held = []
    for seed in range(60):
        selected = hypergeometric_quotas(CAPACITY, 40, rng(seed), 1)[0]
        found = over_random(ASKED, NOTHING, selected, CAPACITY, rng(1000 + seed))
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) >= 0.9
    assert over_random(ASKED, NOTHING, np.array([59, 44, 30, 15, 2]), CAPACITY, rng()).low > 0


def test_two_questions_say_nothing_and_ten_of_one_cluster_not_that_all_usage_lies_there() -> None:
    """By the exact binomial, usage that has ten of ten documents in a cluster may have three in ten elsewhere."""
    few = certify(HeldOut.distinct(np.array([2, 0, 0, 0, 0])), CURRENT, TOWARDS, CAPACITY, rng())
    assert few["after"] is few["reduction"] is few["reduction_over_random"] is None
    assert few["notes"] == [
        "insufficient: 2 held-out usage documents, and at least 5 are needed to estimate anything; raise "
        "holdout_fraction or add usage"
    ]
    ten = HeldOut.distinct(np.array([10, 0, 0, 0, 0]))
    elsewhere = 0.7 * np.eye(5)[0] + 0.3 * shares(CURRENT)
    possible = float(jsd(elsewhere, shares(CURRENT)) - jsd(elsewhere, shares(CURRENT + TOWARDS)))
    assert reduction(ten, CURRENT, CURRENT + TOWARDS, rng()).low <= possible


def test_copies_of_ten_questions_tell_no_more_than_ten_questions() -> None:
    ten = np.array([4, 3, 2, 1, 0])
    copied = HeldOut(10 * ten, effective_number(10 * ten, 1000))
    assert copied.effective == 10
    assert divergence(copied, CURRENT, rng()) == divergence(HeldOut.distinct(ten), CURRENT, rng())
    body = certify(copied, CURRENT, TOWARDS, CAPACITY, rng())
    assert (body["heldout_documents"], body["heldout_effective"]) == (100, 10.0)
    note = certify(HeldOut(10 * ten, 4.0), CURRENT, TOWARDS, CAPACITY, rng())["notes"]
    assert note[0].startswith("insufficient: 100 held-out usage documents, worth 4.0 without copies, and at least 5 ")


@pytest.mark.parametrize("documents", [10, 20])
def test_intervals_hold_the_truth_with_few_documents(documents: int) -> None:
    truth = rng(3).dirichlet(np.full(30, 0.5))
    far = rng(4).dirichlet(np.ones(30))
    near = 0.5 * truth + 0.5 * far
    true_value, true_reduction = float(jsd(truth, near)), float(jsd(truth, far) - jsd(truth, near))
    held = []
    for seed in range(40):
        asked = HeldOut.distinct(rng(5000 + seed).multinomial(documents, truth))
        after, change = divergence(asked, 1e6 * near, rng(seed)), reduction(asked, far, near, rng(seed))
        held += [after.low <= true_value <= after.high, change.low <= true_reduction <= change.high]
    assert np.mean(held) >= 0.9
