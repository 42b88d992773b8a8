"""Similarity of languages by typological features."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from compass_ray.errors import ConfigError
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.nearness import NEAR, OTHER, OWN, language_tiers
from compass_ray.sample.uriel import Uriel, fingerprint, read_features

DATA = Path(os.environ.get("COMPASS_DATA", Path(__file__).parents[3] / "shared" / "data")) / "linguistic"


def write(folder: Path, name: str, feats: list[str], values: dict[str, list[list[float]]]) -> None:
    """One table; values by language: for each source a list over features, -1 unknown."""
    data = np.array([np.array(rows).T for rows in values.values()], dtype=np.float32)
    np.savez(folder / name, feats=np.array(feats), langs=np.array(list(values)), data=data)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    write(
        tmp_path,
        "features.npz",
        ["S_SVO", "S_TENSE", "P_TONE", "P_CLICK"],
        {
            "swh": [[1, 1, 0, 1], [1, -1, -1, -1]],
            "zul": [[1, 0, 0, 1], [-1, -1, -1, -1]],
            "pol": [[0, 1, -1, -1], [1, -1, -1, -1]],
            "tam": [[-1, -1, -1, -1], [-1, -1, -1, -1]],
        },
    )
    write(tmp_path, "family_features.npz", ["F_Bantu", "F_Slavic"], {"swh": [[1, 0]], "zul": [[1, 0]], "pol": [[0, 1]]})
    return str(tmp_path)


def test_similarity_is_the_mean_over_sets_of_the_cosine_over_known_features(folder: str) -> None:
    found = read_features(folder).similarity("sw", ["zu", "pl", "sw"])
    syntax = 1 / np.sqrt(2)  # (1, 1) and (1, 0)
    polish = (0.5 * 1 + 1 * 1) / (np.sqrt(2) * np.sqrt(0.25 + 1))  # (1, 1) and, of two sources, (0.5, 1)
    assert found.tolist() == pytest.approx([(syntax + 1 + 1) / 3, (polish + 0) / 2, 1.0])


def test_a_language_of_which_nothing_is_known_is_not_a_number(folder: str) -> None:
    found = read_features(folder).similarity("sw", ["ta", "xh"])
    assert np.isnan(found).all()


def test_languages_are_near_by_their_features_where_these_are_given(folder: str) -> None:
    languages = ("en", "pl", "sw", "ta", "xh", "zu")
    by_features = SampleConfig(budget=1, language_prior="near", language_features=folder)
    assert language_tiers("sw", languages, by_features).tolist() == [OTHER, OTHER, OWN, OTHER, OTHER, NEAR]
    by_cldr = SampleConfig(budget=1, language_prior="near")
    assert language_tiers("sw", languages, by_cldr).tolist() == [NEAR, OTHER, OWN, OTHER, OTHER, OTHER]
    assert not language_tiers("sw", languages, SampleConfig(budget=1, language_prior="none")).any()


@pytest.mark.parametrize(
    ("target_lang", "near", "other"),
    [
        ("ar", ("acm", "arz", "apc"), "he"),
        ("acm", ("ar", "ary"), "tr"),
        ("zh", ("yue", "wuu"), "th"),
        ("yue", ("zh",), "vi"),
    ],
)
def test_members_of_one_macro_language_are_near_whatever_cldr_knows(
    target_lang: str, near: tuple[str, ...], other: str
) -> None:
    by_cldr = SampleConfig(budget=1, language_prior="near")
    assert language_tiers(target_lang, [*near, other], by_cldr).tolist() == [*[NEAR] * len(near), OTHER]


def test_a_row_of_which_nothing_is_known_gives_way_to_the_main_members() -> None:
    nothing, something = np.full(2, np.nan, np.float32), np.ones(2, np.float32)
    codes = ["fil", "tgl", "que", "quy", "lav", "lvs", "eng"]
    values = np.stack([nothing, something] * 3 + [something])
    uriel = Uriel({"S_": ({code: row for row, code in enumerate(codes)}, values)})
    assert uriel.similarity("en", ["fil", "qu", "lv", "et"]) == pytest.approx([1, 1, 1, np.nan], nan_ok=True)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"features\.npz does not exist; give the folder that holds"):
        read_features(str(tmp_path / "nowhere"))


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "features.npz", feats=np.array(["S_A"], dtype=object), langs=np.array(["sw"]), data=np.zeros(1))
    with pytest.raises(ConfigError, match="is no table of lang2vec"):
        read_features(str(tmp_path))


def test_other_bytes_have_another_fingerprint(folder: str) -> None:
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    write(Path(folder), "family_features.npz", ["F_Bantu"], {"swh": [[1]]})
    assert fingerprint(folder) != before


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no shared data at {DATA}; set COMPASS_DATA")
def test_related_languages_are_nearer_than_others_on_the_real_tables() -> None:
    uriel = read_features(str(DATA))
    for target_lang, near, far in (("es", "pt", "fi"), ("sw", "zu", "pl"), ("ta", "te", "en"), ("zh", "zh-Hant", "de")):
        similarity = uriel.similarity(target_lang, [near, far])
        assert similarity[0] > similarity[1], (target_lang, near, far)
        assert ((similarity >= 0) & (similarity <= 1 + 1e-9)).all()
