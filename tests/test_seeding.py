"""Keyed hashing: a document's randomness is its own, whatever the process, order or company."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from compass_ray import seeding


def random_ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


def uniform_in_plain_python(doc_id: bytes, seed: int, purpose: str, target_lang: str) -> float:
    """The same definition in unbounded integers: what any other implementation must reproduce."""
    mask = (1 << 64) - 1

    def mix(x: int) -> int:
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    key = hashlib.blake2b(f"{seed}\x1f{purpose}\x1f{target_lang}".encode(), digest_size=16).digest()
    word = [int.from_bytes(doc_id[i : i + 8], "little") for i in (0, 8)]
    salt = [int.from_bytes(key[i : i + 8], "little") for i in (0, 8)]
    mixed = mix(mix(word[0] ^ salt[0]) ^ word[1] ^ salt[1])
    return ((mixed >> 12) + 0.5) / 2**52


@given(
    doc_id=st.binary(min_size=16, max_size=16),
    seed=st.integers(0, 2**63),
    purpose=st.sampled_from(["draw", "holdout", "fit"]),
    target_lang=st.sampled_from(["", "sw", "zh-Hant"]),
)
def test_uniform_equals_its_definition_in_plain_integers(
    doc_id: bytes, seed: int, purpose: str, target_lang: str
) -> None:
    ids = np.frombuffer(doc_id, dtype=np.uint8)[None]
    assert seeding.uniform(ids, seed, purpose, target_lang)[0] == uniform_in_plain_python(
        doc_id, seed, purpose, target_lang
    )


@given(order=st.permutations(range(12)), cut=st.integers(0, 12))
def test_a_document_gets_the_same_number_in_any_order_and_company(order: list[int], cut: int) -> None:
    ids = random_ids(12)
    together = seeding.uniform(ids, 7, "draw", "sw")
    parts = [seeding.uniform(ids[part], 7, "draw", "sw") for part in (order[:cut], order[cut:])]
    assert np.concatenate(parts).tobytes() == together[order].tobytes()


def test_a_strided_view_of_ids_gives_the_same_numbers_as_a_copy() -> None:
    ids = random_ids(20)
    assert seeding.uniform(ids[::2], 1, "draw").tolist() == seeding.uniform(ids[::2].copy(), 1, "draw").tolist()


def test_no_ids_give_no_numbers() -> None:
    assert seeding.uniform(np.empty((0, 16), dtype=np.uint8), 0, "draw").shape == (0,)


def test_numbers_are_uniform_also_for_ids_that_only_count_up() -> None:
    counters = np.arange(20_000, dtype="<u8")
    ids = np.column_stack([counters, np.zeros_like(counters)]).view(np.uint8)
    assert stats.kstest(seeding.uniform(ids, 3, "draw"), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("doc_id", [b"\x00" * 16, b"\xff" * 16])
def test_numbers_lie_inside_the_open_unit_interval(doc_id: bytes) -> None:
    ids = np.frombuffer(doc_id, dtype=np.uint8)[None]
    values = np.concatenate([seeding.uniform(ids, seed, "draw") for seed in range(200)])
    assert values.min() > 0
    assert values.max() < 1


@pytest.mark.parametrize(
    "other",
    [(1, "draw", "sw"), (0, "holdout", "sw"), (0, "draw", "hi"), (0, "draw", "")],
    ids=["seed", "purpose", "target_lang", "no target language"],
)
def test_another_seed_purpose_or_target_language_gives_independent_numbers(other: tuple[int, str, str]) -> None:
    ids = random_ids(20_000)
    correlation = np.corrcoef(seeding.uniform(ids, 0, "draw", "sw"), seeding.uniform(ids, *other))[0, 1]
    assert abs(correlation) < 0.03


def test_purpose_and_target_language_do_not_run_into_each_other() -> None:
    ids = random_ids(4)
    assert seeding.uniform(ids, 0, "a", "bc").tolist() != seeding.uniform(ids, 0, "ab", "c").tolist()


def test_gumbel_noise_is_standard_gumbel() -> None:
    noise = seeding.gumbel(random_ids(20_000), 0, "draw", "sw")
    assert np.isfinite(noise).all()
    assert stats.kstest(noise, "gumbel_r").pvalue > 1e-3


def test_top_one_of_log_weight_plus_gumbel_is_a_weighted_draw() -> None:
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    ids = random_ids(4)
    wins = [int(np.argmax(np.log(weights) + seeding.gumbel(ids, seed, "draw"))) for seed in range(4000)]
    assert stats.chisquare(np.bincount(wins, minlength=4), 4000 * weights).pvalue > 1e-3


def test_smallest_exponential_over_weight_is_a_weighted_draw() -> None:
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    ids = random_ids(4, seed=1)
    wins = [int(np.argmin(seeding.exponential(ids, seed, "center-0") / weights)) for seed in range(4000)]
    assert stats.chisquare(np.bincount(wins, minlength=4), 4000 * weights).pvalue > 1e-3


def test_child_seeds_are_64_bit_reproducible_and_differ_by_every_name() -> None:
    names = [(), ("interval",), ("interval", "sw"), ("interval", "hi"), ("quotas", "sw")]
    seeds = [seeding.child_seed(run, *name) for run in (0, 1) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    expected = hashlib.blake2b(b"0\x1finterval\x1fsw", digest_size=8).digest()
    assert seeding.child_seed(0, "interval", "sw") == int.from_bytes(expected, "little")
