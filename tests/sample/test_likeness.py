"""Pool rows that nearly repeat usage: by words, and by cosine whatever block, tile or worker they are in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray import records
from compass_ray.sample import likeness
from compass_ray.sample.likeness import Compared, Usage, near_usage
from compass_ray.sample.usage_contrast import products
from compass_ray.vectors import to_column, unit_rows

DIM, TARGET_LANGS, LIMIT = 8, ("hi", "sw"), 0.95


def id_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


def pair(texts: Sequence[str], vectors: Any, first: int = 0, missing: Sequence[int] = ()) -> tuple[pa.Table, pa.Table]:
    """Documents of rising ids, and what they are embedded as, in another order."""
    ids = pa.array([id_of(first + number) for number in range(len(texts))], records.ID)
    none = np.isin(np.arange(len(texts)), missing)
    documents = pa.table({"doc_id": ids, "text": pa.array(texts, pa.string())})
    embeddings = pa.table({"doc_id": ids, "vector": to_column(np.asarray(vectors).reshape(-1, DIM), none)})
    return documents, embeddings.take(pa.array(np.arange(len(texts))[::-1]))


def usage_of(texts: Sequence[str], vectors: Any, target_langs: Sequence[str], first: int = 1000, **given: Any) -> Usage:
    documents, embeddings = pair(texts, vectors, first, **given)
    return Usage.of(
        documents.append_column("target_lang", pa.array(target_langs, pa.string())), embeddings, TARGET_LANGS
    )


def axes(count: int, start: int = 0) -> np.ndarray:
    """Vectors of which no two are alike."""
    return np.eye(DIM)[start : start + count]


def found(table: pa.Table) -> dict[tuple[int, str], tuple[int, bool]]:
    """Usage documents and whether by words, by pool document and target language."""
    assert table.schema.equals(records.NEAR_USAGE)
    rows = table.to_pylist()
    numbers = [(int.from_bytes(row["doc_id"]), row["target_lang"], int.from_bytes(row["usage"])) for row in rows]
    assert [number[:2] for number in numbers] == sorted(number[:2] for number in numbers)
    return {
        (doc, target_lang): (usage, row["same_words"])
        for (doc, target_lang, usage), row in zip(numbers, rows, strict=True)
    }


# --- words --------------------------------------------------------------------------------------


def test_a_row_that_is_usage_but_for_a_full_stop_or_spelling_is_near_to_it() -> None:
    said = ["Where is the well?", "کتاب کجاست", "الكتاب", "two wells"]
    pool = ["where is the well", "كتاب كجاست؟", "الكـــتاب.", "Where is the well, then?", "two\u200b wells", "?!"]
    near = near_usage(
        Compared.of(*pair(pool, axes(6))),
        [usage_of(said, [axes(1, 7)] * 4, ["sw", "hi", "sw", "sw"])],
        TARGET_LANGS,
        None,
    )
    assert found(near) == {
        (0, "sw"): (1000, True),
        (1, "hi"): (1001, True),
        (2, "sw"): (1002, True),
        (4, "sw"): (1003, True),
    }


def test_texts_without_words_are_near_to_none() -> None:
    pool, usage = Compared.of(*pair(["👍", "…"], axes(2))), usage_of(["👎", "?"], axes(2, 2), ["sw", "sw"])
    assert found(near_usage(pool, [usage], TARGET_LANGS, LIMIT)) == {}


def test_the_same_words_in_usage_of_two_languages_count_for_both_and_name_the_lowest_id() -> None:
    usage = usage_of(["Yes.", "yes", "YES", "no"], axes(4), ["sw", "hi", "sw", "hi"])
    near = near_usage(Compared.of(*pair(["(yes)"], axes(1, 5))), [usage], TARGET_LANGS, LIMIT)
    assert found(near) == {(0, "hi"): (1001, True), (0, "sw"): (1000, True)}


def test_words_are_named_before_vectors_and_both_are_found() -> None:
    usage = usage_of(["other words", "the same"], [axes(1), axes(1, 1)], ["sw", "sw"])
    near = near_usage(Compared.of(*pair(["The same!", "apart"], [axes(1), axes(1)])), [usage], TARGET_LANGS, LIMIT)
    assert found(near) == {(0, "sw"): (1001, True), (1, "sw"): (1000, False)}


# --- vectors ------------------------------------------------------------------------------------


def by_definition(
    pool: np.ndarray, usage: np.ndarray, target_langs: Sequence[str], limit: float
) -> dict[tuple[int, str], tuple[int, bool]]:
    """The first usage document of each target language at a cosine of the limit or more, in float64."""
    x, u = (unit_rows(np.asarray(rows, dtype=np.float16)).astype(np.float64) for rows in (pool, usage))
    near: dict[tuple[int, str], tuple[int, bool]] = {}
    for row, known in np.argwhere(x @ u.T >= limit).tolist():
        near.setdefault((row, target_langs[known]), (1000 + known, False))
    return dict(sorted(near.items()))


def clouds(n_pool: int, n_usage: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows around a few centers, so that many cosines lie around the limit."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(5, DIM))
    rows = [unit_rows(centers[rng.integers(0, 5, n)] + 0.25 * rng.normal(size=(n, DIM))) for n in (n_pool, n_usage)]
    return rows[0], rows[1], [TARGET_LANGS[number] for number in rng.integers(0, 2, n_usage)]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 999), cuts=st.lists(st.integers(0, 40), max_size=3), tile=st.integers(1, 30))
def test_rows_at_the_limit_or_above_are_near_however_usage_is_cut_into_blocks(
    seed: int, cuts: list[int], tile: int
) -> None:
    x, u, target_langs = clouds(30, 40, seed)
    blocks = []
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), 40], strict=True):
        texts = [f"usage {number}" for number in range(start, end)]
        blocks.append(usage_of(texts, u[start:end], target_langs[start:end], first=1000 + start))
    pool = Compared.of(*pair([f"pool {number}" for number in range(30)], x))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likeness, "TILE_ROWS", tile)
        near = near_usage(pool, blocks, TARGET_LANGS, 0.9)
        again = near_usage(pool, blocks[::-1], TARGET_LANGS, 0.9)
    assert found(near) == by_definition(x, u, target_langs, 0.9)
    assert again.equals(near)


def test_a_joined_block_is_its_parts_by_id() -> None:
    _, u, target_langs = clouds(0, 20, 1)
    texts = [f"usage {number}" for number in range(20)]
    whole = usage_of(texts, u, target_langs)
    parts = [usage_of(texts[a:b], u[a:b], target_langs[a:b], first=1000 + a) for a, b in ((12, 20), (0, 5), (5, 12))]
    joined = Usage.joined(parts)
    for name in ("ids", "words", "has_words", "vectors"):
        assert np.array_equal(getattr(joined.rows, name), getattr(whole.rows, name))
    assert np.array_equal(joined.target_lang, whole.target_lang)


@pytest.mark.parametrize("count", [1, 7, 300])
def test_equal_rows_right_at_the_limit_have_equal_answers(count: int) -> None:
    rng = np.random.default_rng(0)
    known = unit_rows(rng.normal(size=(1, DIM))).astype(np.float16)
    row = unit_rows(known + 0.1 * rng.normal(size=(1, DIM))).astype(np.float16)
    limit = float(products(unit_rows(row), unit_rows(known)[0].astype(np.float64))[0])
    usage = usage_of(["usage"] * 40, np.repeat(known, 40, axis=0), ["sw"] * 40)
    pool = Compared.of(*pair([f"pool {number}" for number in range(count)], np.repeat(row, count, axis=0)))
    assert len(found(near_usage(pool, [usage], TARGET_LANGS, limit))) == count
    assert found(near_usage(pool, [usage], TARGET_LANGS, float(np.nextafter(limit, 1)))) == {}


def test_rows_without_a_finite_vector_or_a_direction_are_compared_by_words_alone() -> None:
    zero = np.zeros((1, DIM))
    pool = Compared.of(*pair(["a b", "c d", "e f"], [zero, zero, axes(1)], missing=[1]))
    usage = usage_of(["x y", "C D", "z"], [zero, axes(1), axes(1)], ["sw"] * 3, missing=[1])
    assert found(near_usage(pool, [usage], TARGET_LANGS, LIMIT)) == {(1, "sw"): (1001, True), (2, "sw"): (1002, False)}


def test_without_a_limit_vectors_make_no_difference() -> None:
    usage = usage_of(["x y", "same"], axes(2), ["sw", "sw"])
    near = near_usage(Compared.of(*pair(["a b", "Same"], axes(2))), [usage], TARGET_LANGS, None)
    assert found(near) == {(1, "sw"): (1001, True)}


def test_a_document_that_occurs_several_times_is_compared_once() -> None:
    documents, embeddings = pair(["a", "b"], axes(2))
    twice = Compared.of(pa.concat_tables([documents, documents]), pa.concat_tables([embeddings, embeddings]))
    assert twice.ids.tobytes() == id_of(0) + id_of(1)


@pytest.mark.parametrize("empty", ["pool", "usage", "blocks"])
def test_nothing_to_compare_finds_nothing(empty: str) -> None:
    some, none = (["a", "b"], axes(2)), ([], axes(0))
    pool = Compared.of(*pair(*(none if empty == "pool" else some)))
    usage = usage_of(*(none if empty == "usage" else some), target_langs=[] if empty == "usage" else ["sw", "hi"])
    near = near_usage(pool, [] if empty == "blocks" else [usage], TARGET_LANGS, LIMIT)
    assert found(near) == {}
