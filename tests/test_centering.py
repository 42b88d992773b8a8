"""Language means: they take the language out of vectors, and their bits do not depend on who added them up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.artifacts import artifact
from compass_ray.centering import KEY, MIN_DOCUMENTS, LanguageMeans, language_means, language_sums, read_means
from compass_ray.cluster.codebook import Codebook, open_codebook, read_codebook
from compass_ray.errors import FingerprintMismatch
from compass_ray.vectors import from_column, to_column, unit_rows

N_SHARDS, N_FEATURES = 8, 16
LANGS = ("am", "hi", "sw")


def embeddings(vectors: np.ndarray, langs: Sequence[str]) -> pa.Table:
    """The columns of an embedding shard that centring reads."""
    return pa.table({"lang": pa.array(langs, pa.string()), "vector": to_column(vectors)})


def corpus(seed: int = 0, rows: int = 40) -> list[pa.Table]:
    """Shards whose vectors lean towards a direction of their language; Amharic is in half of them."""
    rng = np.random.default_rng(seed)
    leaning = rng.normal(size=(len(LANGS), N_FEATURES))
    shards = []
    for number in range(N_SHARDS):
        codes = rng.integers(number % 2, len(LANGS), rows + number)
        x = unit_rows(leaning[codes] + rng.normal(size=(len(codes), N_FEATURES)))
        shards.append(embeddings(x, [LANGS[code] for code in codes]))
    return shards


CORPUS = corpus()
MEANS = language_means(map(language_sums, CORPUS))


def raw(table: pa.Table) -> np.ndarray:
    return unit_rows(from_column(table["vector"])).astype(np.float64)


def test_means_are_those_of_each_language_and_of_all_under_no_name() -> None:
    whole = pa.concat_tables(CORPUS)
    langs = np.array(whole["lang"].to_pylist())
    assert sorted(MEANS.by_language) == ["", *LANGS]
    for lang, mean in MEANS.by_language.items():
        expected = raw(whole)[langs == lang if lang else np.full(len(langs), True)].mean(axis=0)
        np.testing.assert_allclose(mean, expected, atol=1e-7)
        assert mean.dtype == np.float32


def test_moved_vectors_have_a_mean_of_zero_in_every_language_before_they_are_scaled() -> None:
    """Scaling divides by a positive length: the moved vector is what the unit vector points along."""
    whole = pa.concat_tables(CORPUS)
    langs = np.array(whole["lang"].to_pylist())
    rows, centred = raw(whole), MEANS.unit_rows(whole)
    lengths = np.empty(len(rows))
    for lang in LANGS:
        moved = rows[langs == lang] - MEANS.by_language[lang]
        np.testing.assert_allclose(moved.mean(axis=0), 0, atol=1e-7)
        lengths[langs == lang] = np.linalg.norm(moved, axis=1)
        np.testing.assert_allclose((centred * lengths[:, None])[langs == lang].mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(centred, axis=1), 1, atol=1e-6)


def test_what_is_said_in_two_languages_comes_together() -> None:
    """Topics at ±10° around 0° in one language and around 90° in another: moved, they are the same two directions."""
    angles = np.deg2rad([-10, 10, 80, 100])
    table = embeddings(np.column_stack([np.cos(angles), np.sin(angles)]), ["sw", "sw", "hi", "hi"])
    moved = language_means([language_sums(table)] * MIN_DOCUMENTS).unit_rows(table)
    np.testing.assert_allclose(moved, [[0, -1], [0, 1], [1, 0], [-1, 0]], atol=2e-3)  # float16 vectors


def test_four_vectors_computed_by_hand() -> None:
    table = embeddings(np.array([[1, 0], [0, 1], [1, 0], [-1, 0]]), ["sw", "sw", "hi", "hi"])
    means = language_means([language_sums(table)] * MIN_DOCUMENTS)
    assert {lang: mean.tolist() for lang, mean in means.by_language.items()} == {
        "sw": [0.5, 0.5],
        "hi": [0, 0],
        "": [0.25, 0.25],
    }
    half = 0.5**0.5
    np.testing.assert_allclose(means.unit_rows(table), [[half, -half], [-half, half], [1, 0], [-1, 0]], rtol=1e-6)


def test_a_language_of_few_documents_has_no_mean_of_its_own() -> None:
    table = embeddings(np.tile([0.6, -0.8], (MIN_DOCUMENTS, 1)), ["hi", *["sw"] * (MIN_DOCUMENTS - 1)])
    assert sorted(language_means([language_sums(table)]).by_language) == [""]
    more = language_means([language_sums(table), language_sums(table.slice(1, 1))])
    assert sorted(more.by_language) == ["", "sw"]


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(range(N_SHARDS)))
def test_shards_that_arrive_in_any_order_give_the_same_bits(order: list[int]) -> None:
    means = language_means(language_sums(CORPUS[shard]) for shard in order)
    assert {lang: mean.tobytes() for lang, mean in means.by_language.items()} == {
        lang: mean.tobytes() for lang, mean in MEANS.by_language.items()
    }


def test_sums_of_more_documents_than_fixed_point_has_room_for_do_not_wrap_around() -> None:
    table = embeddings(np.tile([0.6, -0.8], (3000, 1)), ["sw"] * 3000)
    means = language_means([language_sums(table)] * 100)
    for lang in ("sw", ""):
        np.testing.assert_allclose(means.by_language[lang], raw(table)[0], rtol=1e-6)


def test_a_shard_without_rows_adds_nothing_and_is_moved_to_nothing() -> None:
    empty = CORPUS[0].slice(0, 0)
    assert language_sums(empty) == {}
    means = language_means(language_sums(shard) for shard in [empty, *CORPUS, empty])
    assert means.by_language["hi"].tobytes() == MEANS.by_language["hi"].tobytes()
    assert MEANS.unit_rows(empty).shape == (0, N_FEATURES)


def test_a_language_unknown_to_the_means_is_moved_by_the_mean_of_all() -> None:
    shard = CORPUS[0]
    langs = shard["lang"].to_pylist()
    renamed = shard.set_column(0, "lang", pa.array([{"sw": "zu"}.get(lang, lang) for lang in langs]))
    found = MEANS.unit_rows(renamed)
    known = np.array(langs) != "sw"
    assert found[known].tobytes() == MEANS.unit_rows(shard)[known].tobytes()
    expected = unit_rows(raw(shard)[~known] - MEANS.by_language[""])
    np.testing.assert_allclose(found[~known], expected, atol=1e-6)


def test_without_means_vectors_stay_where_they_are() -> None:
    assert LanguageMeans({}).unit_rows(CORPUS[0]).tobytes() == unit_rows(from_column(CORPUS[0]["vector"])).tobytes()


# --- in a codebook's artifact -------------------------------------------------------------------

CENTROIDS = unit_rows(np.random.default_rng(1).normal(size=(5, N_FEATURES)))
SPACE = {"revision": "r1", "prompt": "", "center": "language"}


def written(folder: Path, means: LanguageMeans, stage: str = "codebook") -> str:
    """The URL of a finished artifact."""
    target = artifact(str(folder), stage, {"space": SPACE})
    receipts = [means.write(target)] if means.by_language else []
    receipts.append(Codebook(CENTROIDS, means, {"sw": 0.25}, -0.5).write(target, {"rows": 9}))
    target.commit(receipts)
    return target.url


def test_means_are_read_back_bit_by_bit(tmp_path: Path) -> None:
    found = read_means(open_codebook(written(tmp_path, MEANS), SPACE))
    assert list(found.by_language) == ["", *LANGS]
    assert all(found.by_language[lang].tobytes() == mean.tobytes() for lang, mean in MEANS.by_language.items())
    assert found.unit_rows(CORPUS[0]).tobytes() == MEANS.unit_rows(CORPUS[0]).tobytes()


@pytest.mark.parametrize("means", [MEANS, LanguageMeans({})], ids=["centred", "raw"])
def test_a_codebook_is_read_back_with_its_means_if_it_has_any(tmp_path: Path, means: LanguageMeans) -> None:
    source = open_codebook(written(tmp_path, means), SPACE)
    assert set(source.manifest().receipts) == ({KEY, "codebook"} if means.by_language else {"codebook"})
    found = read_codebook(source)
    assert found.centroids.tobytes() == CENTROIDS.tobytes()
    assert (found.thresholds, found.default_threshold) == ({"sw": 0.25}, -0.5)
    assert {lang: mean.tolist() for lang, mean in found.means.by_language.items()} == {
        lang: mean.tolist() for lang, mean in means.by_language.items()
    }


@pytest.mark.parametrize(
    ("stage", "changes", "why"),
    [
        ("codebook", {"center": "none"}, "center: language there, none here"),
        (
            "codebook",
            {"prompt": "query: ", "center": "none"},
            "prompt:  there, query:  here; center: language there, none here",
        ),
        ("codebook", {"dim": "384"}, "dim: None there, 384 here"),
        ("assign", {}, "it is of stage assign"),
    ],
)
def test_a_codebook_of_another_space_is_refused_with_what_differs(
    tmp_path: Path, stage: str, changes: dict[str, str], why: str
) -> None:
    url = written(tmp_path, MEANS, stage)
    with pytest.raises(FingerprintMismatch) as caught:
        open_codebook(url, {**SPACE, **changes})
    assert str(caught.value) == (
        f"cluster.codebook: {url} is not a codebook for these embeddings ({why}); "
        "fit a new one or use its encoder and centring"
    )
