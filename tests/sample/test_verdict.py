"""Why a document was not drawn: counted over what was, with what was chance told apart."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import records, seeding
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.reasons import outranked, outranked_by_score
from compass_ray.sample.usage_contrast import Direction
from compass_ray.sample.verdict import Drawing, verdict
from compass_ray.vectors import unit_rows

SEED, TEMPERATURE, DRAWN = 3, 0.35, 8
GAP = {
    "target_lang": "sw",
    "cluster": 4,
    "label": "maize",
    "p_usage": 0.2,
    "p_current": None,
    "quota": DRAWN,
    "unmet": 0,
}
IDS = np.random.default_rng(0).integers(0, 256, (40, 16), dtype=np.uint8)
VECTORS = unit_rows(np.random.default_rng(1).normal(size=(40, 6)))
NOT_NEAR = records.NEAR_USAGE.empty_table()
DIRECTION = Direction(np.array([1.5, 0, 0, 0, 0, 0]))


def drawing(keys: np.ndarray, drawn: np.ndarray, strategy: str = "kl", **changed: Any) -> Drawing:
    """The draw of one cluster, Hausa unless told otherwise."""
    rows = pa.table(
        {
            "target_lang": ["sw"] * len(drawn),
            "cluster": pa.array([4] * len(drawn), pa.int32()),
            "lang": ["ha"] * len(drawn),
            "key": keys[drawn],
            "doc_id": records.numpy_to_ids(IDS[drawn]),
            "tokens": pa.array([9] * len(drawn)),
            "similarity": pa.array([0.5] * len(drawn), pa.float32()),
            "shard": pa.array([0] * len(drawn), pa.int32()),
        },
        schema=records.CANDIDATE,
    ).append_column("rank", pa.array(np.arange(1, len(drawn) + 1)))
    rows = rows.append_column("asked_by", pa.array(changed.pop("asked_by", [4] * len(drawn)), pa.int32()))
    gaps = pa.Table.from_pylist([{**GAP, **changed.pop("gap", {})}])
    config = SampleConfig(strategy=strategy, budget=DRAWN, **changed)
    return Drawing(rows, records.SUPPRESSED.empty_table(), gaps, {"sw": DIRECTION}, config, SEED)


def told(of: Drawing, number: int, near_usage: pa.Table = NOT_NEAR, **changed: Any) -> str:
    own = {"doc_id": IDS[number].tobytes(), "cluster": 4, "lang": "ha", "role": "pool", "outlier": False, **changed}
    return verdict(own, VECTORS[number], records.ASSIGNMENT.empty_table(), near_usage, 0.3, "sw", of).reason


def test_those_nearer_to_usage_and_those_that_were_luckier_are_counted_apart() -> None:
    odds = VECTORS.astype(np.float64) @ DIRECTION.vector / TEMPERATURE
    keys = odds + seeding.gumbel(IDS, SEED, "draw", "sw")
    order = np.argsort(-keys)
    of = drawing(keys, order[:DRAWN], similarity_temperature=TEMPERATURE)
    kinds = set()
    for number in order[DRAWN:].tolist():
        nearer = int((odds[order[:DRAWN]] > odds[number]).sum())
        kinds.add((nearer > 0, nearer < DRAWN))
        reason = told(of, number)
        expected = f"{outranked(nearer, DRAWN, 'of this cluster and language', 'sw')} (key {keys[number]:.4f}, the "
        assert reason.startswith(
            f"{expected}lowest drawn {keys[order[DRAWN - 1]]:.4f}); cluster “maize”: 20.0% of usage"
        )
    assert kinds >= {(True, True), (True, False)}, "the example shows both"


@pytest.mark.parametrize(
    ("nearer", "drawn", "words"),
    [
        (12, 12, "outranked: 12 documents of this cluster lie nearer to Swahili usage"),
        (1, 1, "outranked: 1 document of this cluster lies nearer to Swahili usage"),
        (
            12,
            1_015,
            "outranked: 12 documents of this cluster lie nearer to Swahili usage, and 1,003 no nearer were luckier in "
            "the draw",
        ),
        (
            0,
            3,
            "outranked by chance: 3 documents of this cluster were luckier in the draw and lie no nearer to Swahili "
            "usage",
        ),
        (
            None,
            1,
            "outranked by chance: all documents of this cluster were drawn alike, and 1 document before it",
        ),
    ],
)
def test_words_for_who_was_drawn_before(nearer: int | None, drawn: int, words: str) -> None:
    assert outranked(nearer, drawn, "of this cluster", "sw") == words


def test_where_all_are_drawn_alike_chance_is_the_reason() -> None:
    keys = seeding.gumbel(IDS, SEED, "draw", "sw")
    order = np.argsort(-keys)
    last = int(order[-1])
    for strategy, off, among in (
        ("kl", {"similarity_temperature": "off"}, "of this cluster and language"),
        ("temperature", {}, "of this language"),
        ("random", {}, "of the pool"),
    ):
        reason = told(drawing(keys, order[:DRAWN], strategy, **off), last)  # type: ignore[arg-type]
        assert reason.startswith(f"outranked by chance: all documents {among} were drawn alike, and 8 documents before")


def test_a_language_competes_with_itself_where_it_has_a_quota_of_its_own() -> None:
    keys = seeding.gumbel(IDS, SEED, "draw", "sw")
    of = drawing(keys, np.argsort(-keys)[:DRAWN], "unimax")
    assert told(of, 0, lang="pl") == "not asked for: Polish got none of the budget by 'unimax'"
    of = drawing(keys, np.argsort(-keys)[:DRAWN])
    assert told(of, 0, lang="pl").endswith("; Polish got none of the cluster's quota of 8 documents")


@pytest.mark.parametrize("strategy", ["nearest", "round_robin", "importance", "dsir"])
def test_scores_that_are_not_kept_are_told_of_those_that_were_drawn(strategy: str) -> None:
    keys = np.linspace(0.9, 0.1, len(IDS))
    reason = told(drawing(keys, np.arange(DRAWN), strategy), 20)
    assert reason == outranked_by_score(DRAWN, keys[DRAWN - 1], strategy)
    assert re.match(rf"outranked: '{strategy}' drew 8 documents, the last at \w+", reason)


def test_what_is_not_asked_for_and_outliers_are_told_with_units() -> None:
    keys = np.linspace(1, 0, len(IDS))
    assert told(drawing(keys, np.arange(0), gap={"quota": 0}), 0) == (
        "not asked for: cluster “maize”: 20.0% of usage, no current data; its quota is 0 documents"
    )
    assert told(drawing(keys, np.arange(3)), 9, outlier=True, similarity=0.25) == (
        "not eligible: an outlier; it lies at cosine 0.250 to the nearest cluster, below the 0.300 that documents in "
        "Hausa need"
    )


def test_a_chosen_row_names_the_cluster_that_asks_for_it() -> None:
    keys = np.arange(40.0)[::-1]
    order = np.arange(DRAWN)
    asked_by = [4, 4, 4, 5, 5, None, None, None]
    of = drawing(keys, order, asked_by=asked_by)
    other = {**GAP, "cluster": 5, "label": "prices", "p_usage": 0.4}
    of = Drawing(
        of.drawn, of.suppressed, pa.concat_tables([of.gaps, pa.Table.from_pylist([other])]), {}, of.config, SEED
    )
    own, near, fills = (told(of, number) for number in (0, 3, 5))
    assert own == "cluster “maize”: 20.0% of usage, no current data; rank 1 of quota 8 documents"
    assert near.startswith("for cluster “prices”: 40.0% of usage, no current data, which the pool lacks; near to it")
    assert near.endswith("cluster “maize”: 20.0% of usage, no current data; rank 4 of quota 8 documents")
    assert fills.startswith("fills the budget with Swahili, nearest to its usage first; no quota asks for it")


def test_rows_that_fill_the_budget_do_not_compete_with_those_of_the_cell() -> None:
    odds = VECTORS.astype(np.float64) @ DIRECTION.vector
    order = np.argsort(-odds)
    of = drawing(odds, order[:DRAWN], asked_by=[None] * DRAWN)
    number = int(order[DRAWN])
    mine = told(of, number, lang="sw")
    assert mine.startswith(
        f"outranked: no cluster quota took it, and {DRAWN} documents in Swahili that fill the budget lie nearer to"
    )
    assert f"log odds {odds[number]:.3f}, the lowest drawn {odds[order[DRAWN - 1]]:.3f}" in mine
    assert told(of, number).startswith("not asked for: cluster “maize”"), "Hausa fills no budget of Swahili"


def test_a_copy_is_told_from_a_near_duplicate() -> None:
    of = drawing(np.arange(40.0)[::-1], np.arange(DRAWN))
    better = IDS[0].tobytes()
    for copy, words in (
        (True, f"passed over: it says in another language what document {better.hex()} says, and 2 documents of"),
        (False, f"passed over: it nearly repeats document {better.hex()} (cosine above 0.95)"),
    ):
        row = of.drawn.slice(0, 1).select(records.CANDIDATE.names).to_pylist()[0]
        passed_over = {**row, "doc_id": IDS[20].tobytes(), "duplicate_of": better, "copy": copy}
        rows = pa.Table.from_pylist([passed_over], schema=records.SUPPRESSED)
        assert told(Drawing(of.drawn, rows, of.gaps, of.directions, of.config, SEED), 20).startswith(words)


def test_a_row_that_gave_way_to_own_rows_of_other_clusters_is_told_so() -> None:
    odds = VECTORS.astype(np.float64) @ DIRECTION.vector
    order = np.argsort(-odds)
    of = drawing(odds, order[:DRAWN], gap={"unmet": 5})
    assert told(of, int(order[DRAWN]), lang="en").startswith("not asked for: cluster"), "no Swahili rows were drawn"
    place = of.drawn.schema.get_field_index("lang")
    swahili = of.drawn.set_column(place, "lang", pa.array(["sw"] * DRAWN))
    mine = told(replace(of, drawn=swahili), int(order[DRAWN]), lang="en")
    assert mine.startswith("not asked for: Swahili of any cluster comes before other languages (sample.shortfall: own")


@pytest.mark.parametrize(
    ("same_words", "why"),
    [
        (True, "but for case, punctuation or spelling it is Swahili usage"),
        (False, "it lies at a cosine of 0.95 or more to Swahili usage"),
    ],
)
def test_a_row_that_nearly_repeats_usage_is_told_which_document_it_repeats(same_words: bool, why: str) -> None:
    of = drawing(np.zeros(40), np.arange(DRAWN))
    rows = [
        {
            "doc_id": IDS[30].tobytes(),
            "target_lang": target_lang,
            "usage": IDS[number].tobytes(),
            "same_words": same_words,
        }
        for number, target_lang in ((1, "hi"), (2, "sw"))
    ]
    near = pa.Table.from_pylist(rows, schema=records.NEAR_USAGE)
    document = f"(document {IDS[2].tobytes().hex()})"
    assert told(of, 30, near) == f"not eligible: {why} {document}; trained on, it would leak into training"
    assert told(of, 30, near.slice(0, 1)).startswith("outranked")
