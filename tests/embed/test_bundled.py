"""The encoder that the package carries: what every user gets without a hub, a GPU or patience."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from compass_ray.embed import load_encoder
from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.evaluation import ParallelScores, parallel_scores
from compass_ray.embed.sentence_transformer import BUNDLED, SentenceTransformerEncoder
from compass_ray.ingest.parallel import read_parallel
from compass_ray.models import folder_revision
from compass_ray.pipelines.train_encoder import EncoderRecipe, load_recipe

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "docs" / "examples" / "bundled_encoder.yaml"
DATA = Path(os.environ.get("COMPASS_DATA", ROOT.parent / "shared" / "data"))

ON_DATA = pytest.mark.skipif(not (DATA / "sib200").is_dir(), reason=f"no shared data at {DATA}; set COMPASS_DATA")

SAID_ALIKE = [
    [
        "The doctor told the patient to rest at the hospital.",
        "Der Arzt sagte dem Patienten, er solle sich im Krankenhaus ausruhen.",
        "El médico le dijo al paciente que descansara en el hospital.",
        "Врач велел пациенту отдыхать в больнице.",
        "Daktari alimwambia mgonjwa apumzike hospitalini.",
        "डॉक्टर ने मरीज को अस्पताल में आराम करने को कहा।",
    ],
    [
        "The team won the football match in the final.",
        "Die Mannschaft gewann das Fußballspiel im Finale.",
        "El equipo ganó el partido de fútbol en la final.",
        "Команда выиграла футбольный матч в финале.",
        "Timu ilishinda mechi ya mpira wa miguu katika fainali.",
        "टीम ने फाइनल में फुटबॉल मैच जीता।",
    ],
    [
        "The government passed a new law after the election.",
        "Die Regierung verabschiedete nach der Wahl ein neues Gesetz.",
        "El gobierno aprobó una nueva ley después de las elecciones.",
        "Правительство приняло новый закон после выборов.",
        "Serikali ilipitisha sheria mpya baada ya uchaguzi.",
        "सरकार ने चुनाव के बाद एक नया कानून पारित किया।",
    ],
]


@pytest.fixture(scope="module")
def bundled() -> SentenceTransformerEncoder:
    encoder = load_encoder("bundled")
    assert isinstance(encoder, SentenceTransformerEncoder)
    return encoder


def test_it_is_the_default_and_loads_like_any_other_model(bundled: SentenceTransformerEncoder) -> None:
    assert EmbedConfig().model == "bundled"
    assert bundled.revision == folder_revision(BUNDLED) == load_encoder(str(BUNDLED)).revision


def test_it_takes_sixteen_megabytes_at_most_and_holds_no_pickle() -> None:
    files = [path for path in BUNDLED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 16_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".md", ""}


def test_its_licence_and_card_lie_beside_it() -> None:
    license = (BUNDLED / "LICENSE").read_text(encoding="utf-8")
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    assert "Creative Commons Attribution-ShareAlike 4.0 International" in license
    for name in ("SIB-200", "OLDI seed", "tldr pages", "AfriQA", "all-MiniLM-L6-v2"):
        assert name in license, name
        assert name in card, name


def test_what_is_said_alike_in_six_languages_is_closer_than_anything_else(bundled: SentenceTransformerEncoder) -> None:
    vectors = bundled.encode([text for group in SAID_ALIKE for text in group])
    groups = np.repeat(np.arange(len(SAID_ALIKE)), len(SAID_ALIKE[0]))
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    assert (groups[similarity.argmax(axis=1)] == groups).all()


@pytest.mark.parametrize(
    "text", ["", " ", "a", "ß", "漢", "٣", "🙂🙃🚀", "\u200d", "x" * 100_000, "word " * 20_000, "\x00", "ꙮ" * 50]
)
def test_any_text_gives_a_finite_unit_vector(bundled: SentenceTransformerEncoder, text: str) -> None:
    [vector] = bundled.encode([text])
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_text_of_no_known_piece_has_the_direction_of_no_text(bundled: SentenceTransformerEncoder) -> None:
    vectors = bundled.encode(["", "\U0001f642", "\U0001f642 \U0001f643\U0001f680"])
    assert (vectors == np.eye(1, bundled.dim)).all()


# The bars on the test split of SIB-200, which no training has seen.


@pytest.fixture(scope="module")
def recipe() -> EncoderRecipe:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEACHER", "not read here")
        environment.setenv("DATA", str(DATA))
        environment.chdir(ROOT)
        return load_recipe(RECIPE)


@pytest.fixture(scope="module")
def favoured(recipe: EncoderRecipe) -> list[str]:
    return [lang for lang in recipe.training.favoured if lang != "eng_Latn"]


@pytest.fixture(scope="module")
def scores(recipe: EncoderRecipe) -> dict[str, ParallelScores]:
    known = read_parallel({"known": recipe.scores.known})
    scored = read_parallel({"scored": recipe.scores.scored})
    return {
        model: parallel_scores(load_encoder(model).encode, known, scored, pivot="en")
        for model in ("bundled", "hashing")
    }


@pytest.mark.data
@ON_DATA
def test_translations_into_english_are_found(scores: dict[str, ParallelScores], favoured: list[str]) -> None:
    assert len(favoured) == 39
    assert scores["bundled"].candidates == 204
    retrieval, _ = scores["bundled"].mean(favoured)
    assert retrieval >= 0.74
    assert scores["bundled"].mean()[0] >= 0.58
    assert scores["bundled"].worst(favoured)[1] >= 0.50


@pytest.mark.data
@ON_DATA
def test_topics_are_known_from_english_neighbours(scores: dict[str, ParallelScores], favoured: list[str]) -> None:
    assert scores["bundled"].mean(favoured)[1] >= 0.62


@pytest.mark.data
@ON_DATA
def test_every_language_is_served_better_than_by_hashed_n_grams(scores: dict[str, ParallelScores]) -> None:
    worse = {
        lang: (score, scores["hashing"].retrieval[lang])
        for lang, score in scores["bundled"].retrieval.items()
        if score < scores["hashing"].retrieval[lang]
    }
    assert worse == {}
