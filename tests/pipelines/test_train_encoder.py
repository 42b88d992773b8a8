"""A whole training on invented languages: it learns, it can be interrupted, and it deletes nothing of others."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from processes import clean_environment
from rich.console import Console
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from trees import tree_bytes

from compass_ray.embed import load_encoder
from compass_ray.embed.evaluation import ParallelScores
from compass_ray.embed.training.teachers import teacher_vectors
from compass_ray.errors import CompassError, ConfigError, EmptyInput
from compass_ray.pipelines import train_encoder as pipeline
from compass_ray.pipelines.train_encoder import EncoderRecipe, load_recipe, score_encoder, train_encoder
from compass_ray.runtime.progress import Display

ROOT = Path(__file__).parents[2]
TOPICS = {
    "food": ("bread", "soup", "cheese", "apple"),
    "sea": ("wave", "ship", "harbour", "sail"),
    "sky": ("cloud", "star", "moon", "rain"),
    "war": ("army", "sword", "battle", "castle"),
}
WORDS = [word for words in TOPICS.values() for word in words]
SIGNS = {"zho": 0x4E00, "kor": 0xAC00, "jpn": 0x3042}
"""Languages of one sign a word, with their first sign."""
MODEL_FILES = ("model.safetensors", "tokenizer.json", "modules.json", "scores.json")


def said(lang: str, words: list[str], rng: np.random.Generator) -> str:
    if lang == "eng":
        return " ".join(word + rng.choice(["", "s"]) for word in words)
    return " ".join(chr(SIGNS[lang] + 2 * WORDS.index(word)) for word in words)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 sentences to train on and 16 to score, each in four languages, with a topic."""
    folder = tmp_path_factory.mktemp("parallel")
    rng = np.random.default_rng(7)
    for part, count in (("train", 60), ("test", 16)):
        rows = []
        for number in range(count):
            topic = list(TOPICS)[number % 4]
            words = [*rng.choice(TOPICS[topic], 2, replace=False), *rng.choice(WORDS, 2)]
            rows += [
                {"id": number, "lang": lang, "text": said(lang, words, rng), "topic": topic} for lang in ("eng", *SIGNS)
            ]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def plain_recipe(data: Path, output: Path) -> dict[str, Any]:
    def corpus(part: str, **more: str) -> dict[str, Any]:
        texts = [{"column": "text", "lang_column": "lang"}]
        return {"path": str(data / f"{part}.jsonl"), "key": ["id"], "texts": texts, "license": "CC0-1.0", **more}

    return {
        "name": "tiny",
        "output": str(output),
        "corpora": {"invented": corpus("train", url="https://example.org/invented")},
        "scores": {"known": corpus("train", label="topic"), "scored": corpus("test", label="topic")},
        "training": {
            "vocab_size": 200,
            "dim": 16,
            "steps": 60,
            "batch_groups": 32,
            "learning_rate": 0.05,
            "token_dropout": 0.1,
            "checkpoint_steps": 20,
        },
        "ray": {"num_cpus": 2},
    }


def run(data: Path, output: Path, *overrides: str, **changes: Any) -> tuple[Path, ParallelScores, str]:
    heard = io.StringIO()
    recipe = load_recipe({**plain_recipe(data, output), **changes}, overrides)
    before = signal.getsignal(signal.SIGINT)
    folder, scores = train_encoder(recipe, Display(Console(file=heard, width=200)))
    assert signal.getsignal(signal.SIGINT) is before
    return folder, scores, heard.getvalue()


def model_bytes(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in MODEL_FILES}


@pytest.fixture(scope="module")
def trained(
    local_ray: None, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ParallelScores, str, dict[str, bytes]]:
    """An undisturbed training, and its bytes."""
    folder, scores, heard = run(data, tmp_path_factory.mktemp("trained"))
    return folder, scores, heard, model_bytes(folder)


# --- what comes out -----------------------------------------------------------------------------


def test_translations_are_found_far_above_chance_in_every_language(trained: tuple[Any, ...]) -> None:
    scores = trained[1]
    assert scores.candidates == 16
    assert sorted(scores.retrieval) == ["jpn", "kor", "zho"]
    assert min(scores.retrieval.values()) > 0.6  # chance is 0.06


def test_the_folder_is_a_model_that_scores_what_was_returned(trained: tuple[Any, ...], data: Path) -> None:
    folder, scores, heard, _ = trained
    recipe = load_recipe(plain_recipe(data, folder.parent))
    assert score_encoder(str(folder), recipe) == scores
    assert json.loads((folder / "scores.json").read_text()) == scores.as_dict()
    encoder = load_encoder(str(folder))
    assert encoder.dim == 16
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(["bread 猫 😀", ""]), axis=1), 1, atol=1e-6)
    assert heard.startswith("corpora    240 texts in 4 languages\ntokenizer  200 pieces\n")


def test_the_card_says_what_it_was_made_of_and_what_it_scores(trained: tuple[Any, ...]) -> None:
    folder, scores, _, _ = trained
    card = (folder / "README.md").read_text()
    assert "| [invented](https://example.org/invented) | 240 | 4 | CC0-1.0 |" in card
    assert "No other model took part." in card
    assert "favoured" not in card
    for lang in SIGNS:
        assert f"| {lang} | {scores.retrieval[lang]:.3f} | {scores.topics[lang]:.3f} |" in card


@pytest.mark.release
def test_a_finished_training_is_used_again_and_gives_the_same_bytes(trained: tuple[Any, ...], data: Path) -> None:
    folder, _, _, expected = trained
    [work] = folder.parent.glob("work-*")
    before = tree_bytes(work / "training")
    shutil.rmtree(folder)
    again, _, heard = run(data, folder.parent)
    assert (again, model_bytes(again)) == (folder, expected)
    assert list(folder.parent.glob("work-*")) == [work]
    checkpoints = {name: data for name, data in tree_bytes(work / "training").items() if name.endswith("safetensors")}
    assert checkpoints.items() <= before.items()
    assert "tokenizer" not in heard


@pytest.mark.release
def test_a_model_of_an_earlier_training_is_replaced(trained: tuple[Any, ...], data: Path, tmp_path: Path) -> None:
    folder, _, _, expected = trained
    shutil.copytree(folder.parent, tmp_path / "out")
    (tmp_path / "out" / "tiny" / "model.safetensors").write_bytes(b"old")
    again, _, _ = run(data, tmp_path / "out")
    assert model_bytes(again) == expected
    assert not list((tmp_path / "out").glob("work-*/replaced"))


# --- interruptions ------------------------------------------------------------------------------


def job(recipe: Path, home: Path, *arguments: str) -> list[str]:
    home.mkdir(exist_ok=True)
    return [sys.executable, str(ROOT / "jobs" / "train_encoder.py"), str(recipe), *arguments]


@pytest.mark.slow
@pytest.mark.release
def test_the_job_gives_the_same_bytes_one_line_of_json_and_progress_on_stderr(
    trained: tuple[Any, ...], data: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(plain_recipe(data, tmp_path / "out")))
    done = subprocess.run(
        job(recipe, tmp_path / "home"),
        env=clean_environment(tmp_path / "home"), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    retrieval, topics = trained[1].mean()
    assert json.loads(line) == {"path": str(tmp_path / "out" / "tiny"), "retrieval": retrieval, "topics": topics}
    assert model_bytes(tmp_path / "out" / "tiny") == trained[3]
    said = [line for line in done.stderr.splitlines() if "Set ray log level" not in line]  # by Ray's core, always
    assert said[:2] == ["corpora    240 texts in 4 languages", "tokenizer  200 pieces"]
    assert all(line.startswith("train      ") and line.endswith("/60 steps") for line in said[2:]), done.stderr


def wait_for(reached: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while not reached():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.faults
@pytest.mark.release
def test_a_training_that_is_killed_goes_on_from_its_checkpoint_to_the_same_bytes(
    local_ray: None, data: Path, tmp_path: Path
) -> None:
    steps = 300
    slow = ("training.checkpoint_steps=20", f"training.steps={steps}")
    expected = model_bytes(run(data, tmp_path / "whole", *slow)[0])
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(plain_recipe(data, tmp_path / "out")))
    home = tmp_path / "home"
    process = subprocess.Popen(
        job(recipe, home, *(f"--set={item}" for item in slow)),
        env=clean_environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: len(reported(tmp_path / "out")) > 0, process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (tmp_path / "out" / "tiny").exists()
    time.sleep(5)  # Ray's processes end when they miss the one that started them
    assert 0 < max(reported(tmp_path / "out")) < steps
    assert model_bytes(run(data, tmp_path / "out", *slow)[0]) == expected


def reported(output: Path) -> list[int]:
    """The steps whose checkpoints Ray Train knows."""
    found = list(output.glob("work-*/training/checkpoint_manager_snapshot.json"))
    try:
        results = json.loads(found[0].read_text())["checkpoint_results"] if found else []
    except (json.JSONDecodeError, FileNotFoundError):  # being written
        return []
    return [result["metrics"]["step"] for result in results]


# --- teachers, languages, corpora ---------------------------------------------------------------


def save_teacher(folder: Path, scale: float = 1.0) -> Path:
    """A teacher to which words of a topic are near."""
    names = [word + ending for word in WORDS for ending in ("", "s")]
    tokenizer = Tokenizer(WordLevel({"[UNK]": 0} | {n: i + 1 for i, n in enumerate(names)}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = Whitespace()
    weights = np.random.default_rng(1).normal(0, 0.3, size=(len(names) + 1, 8)).astype(np.float32)
    for number in range(len(names)):
        weights[number + 1, number // 8] += scale
    static = StaticEmbedding(tokenizer, embedding_weights=weights)
    SentenceTransformer(modules=[static], device="cpu").save(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = save_teacher(tmp_path_factory.mktemp("teacher") / "model")
    return {"model": str(folder), "name": "topic words", "license": "CC0-1.0"}


@pytest.mark.release
def test_a_teacher_makes_topics_near_and_excluded_languages_are_scored_unseen(
    trained: tuple[Any, ...], data: Path, tmp_path: Path, teacher: dict[str, str]
) -> None:
    plain = plain_recipe(data, tmp_path)
    training = {**plain["training"], "dim": 8, "teachers": [teacher], "favoured": ["zho", "eng"], "favour": 2}
    folder, scores, heard = run(data, tmp_path, training=training, exclude_languages=["ja"])
    assert sorted(scores.retrieval) == ["jpn", "kor", "zho"]
    assert scores.retrieval["jpn"] < 0.3 < 0.5 < min(scores.retrieval["kor"], scores.retrieval["zho"])
    untaught = trained[1]
    assert scores.pivot_topics > 0.7
    assert scores.topics["zho"] + scores.topics["kor"] > untaught.topics["zho"] + untaught.topics["kor"]
    assert heard.startswith("corpora    180 texts in 3 languages\n")
    card = (folder / "README.md").read_text()
    assert "drawn towards, those of topic words (CC0-1.0)." in card
    assert "| [invented](https://example.org/invented) | 180 | 3 | CC0-1.0 |" in card
    assert f"| the 1 favoured | {scores.retrieval['zho']:.3f} |" in card  # the pivot has no score


def test_vectors_do_not_tell_forms_that_are_to_be_erased(trained: tuple[Any, ...], data: Path, tmp_path: Path) -> None:
    words = ("bread", "cheese")
    shutil.copytree(trained[0].parent, tmp_path / "out")  # with the training, which is the same
    asked = {"corpus": "invented", "lang": "en", "pattern": "|".join(words), "min_texts": 3}
    folder, _, _ = run(data, tmp_path / "out", forms=asked)
    texts = [json.loads(line)["text"] for line in (data / "train.jsonl").read_text().splitlines() if '"eng"' in line]
    first = np.array([found[0] if (found := re.search("|".join(words), text)) else "" for text in texts])

    def apart(model: Path) -> float:
        vectors = load_encoder(str(model)).encode(texts)
        return float(np.linalg.norm(vectors[first == words[0]].mean(axis=0) - vectors[first == words[1]].mean(axis=0)))

    assert apart(folder) < 0.3 * apart(trained[0])


# --- the fingerprint ----------------------------------------------------------------------------


def fingerprint(recipe: EncoderRecipe) -> str:
    texts, _ = pipeline._training_texts(recipe)
    return pipeline._fingerprint(recipe, texts)


@pytest.mark.parametrize(
    "change",
    [
        "training.seed=1", "training.favoured=[zho]", "training.favour=2", "training.vocab_size=199",
        "training.tokenizer_corpora=[invented]", "training.max_piece_length=11", "training.min_piece_count=3",
        "training.dim=15", "training.steps=61", "training.batch_groups=31", "training.learning_rate=0.04",
        "training.scale=19", "training.token_dropout=0.2", "training.start_scale=1", "training.noise=0.1",
        "training.workers=2", "training.threads=2", "exclude_languages=[ja]", "corpora.invented.weight=2",
        "corpora.invented.key=[id, topic, lang]", "training.teacher_weight=2",
        "training.teachers=[{model: hashing, name: h, license: none}]",
    ],
)  # fmt: skip
def test_the_work_folder_is_another_for_whatever_changes_the_vectors(data: Path, tmp_path: Path, change: str) -> None:
    plain = plain_recipe(data, tmp_path)
    if "key=" in change:  # texts in other groups
        pairs = tmp_path / "pairs.jsonl"
        rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
        pairs.write_text("".join(json.dumps({**row, "id": row["id"] // 2}) + "\n" for row in rows))
        change = f"corpora.invented.path={pairs}"
    assert fingerprint(load_recipe(plain, [change])) != fingerprint(load_recipe(plain))


@pytest.mark.parametrize(
    "change", ["training.checkpoint_steps=7", "ray.num_cpus=1", "name=other", "output=elsewhere"]
)  # fmt: skip
def test_the_work_folder_is_the_same_for_what_changes_nothing(data: Path, tmp_path: Path, change: str) -> None:
    plain = plain_recipe(data, tmp_path)
    assert fingerprint(load_recipe(plain, [change])) == fingerprint(load_recipe(plain))


def test_the_work_folder_is_another_if_texts_move_to_a_corpus_of_another_weight(data: Path, tmp_path: Path) -> None:
    plain = plain_recipe(data, tmp_path)
    light, heavy = plain["corpora"]["invented"], {**plain["scores"]["scored"], "weight": 3.0}
    swapped = {"b": {**light, "weight": 3.0}, "a": {**heavy, "weight": 1.0}}
    one = load_recipe({**plain, "corpora": {"a": light, "b": heavy}})
    other = load_recipe({**plain, "corpora": swapped})
    assert fingerprint(one) != fingerprint(other)


def test_the_work_folder_is_another_for_other_weights_of_the_teacher_wherever_it_lies(
    data: Path, tmp_path: Path, teacher: dict[str, str]
) -> None:
    def taught(folder: Path) -> str:
        training = {**plain_recipe(data, tmp_path)["training"], "teachers": [{**teacher, "model": str(folder)}]}
        return fingerprint(load_recipe({**plain_recipe(data, tmp_path), "training": training}))

    expected = taught(Path(teacher["model"]))
    assert taught(Path(shutil.copytree(teacher["model"], tmp_path / "copy"))) == expected
    assert taught(save_teacher(tmp_path / "changed", scale=2.0)) != expected


# --- what is refused ----------------------------------------------------------------------------


def refused(error: type[CompassError], recipe: EncoderRecipe) -> str:
    with pytest.raises(error) as caught:
        train_encoder(recipe, Display(Console(file=io.StringIO())))
    assert not list(Path(recipe.output).glob("work-*")), "nothing may be begun"
    return str(caught.value)


def test_scores_without_labels_are_refused(data: Path, tmp_path: Path) -> None:
    plain = plain_recipe(data, tmp_path)
    del plain["scores"]["scored"]["label"]
    with pytest.raises(ConfigError) as caught:
        load_recipe(plain)
    assert str(caught.value).startswith("config: 1 problem(s)\n")
    assert "scores" in str(caught.value)
    assert "known and scored need a label" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "training.favoured=[zho, deu, fra]",
            "training.favoured: deu, fra not in the corpora; found ['eng', 'jpn', 'kor', 'zho']",
        ),
        (
            "exclude_languages=[ja, deu, nonsense]",
            "exclude_languages: deu, nonsense not in the corpora; found ['eng', 'jpn', 'kor', 'zho']",
        ),
        (
            "exclude_languages=[ja, ko, zh]",
            "exclude_languages: leaves ['eng'] to train on; translations take two languages",
        ),
        (
            "training.tokenizer_corpora=[invented, lost]",
            "training.tokenizer_corpora: lost not in corpora; found ['invented']",
        ),
        (
            "training.pivot=eng",
            "training.pivot: no text of scores.known is in eng; write it as a BCP-47 tag, as in 'en' for eng_Latn; "
            "found eng, jpn, kor, zho",
        ),
        (
            "forms={corpus: lost, lang: en, pattern: bread}",
            "forms.corpus: lost not in corpora; found ['invented']",
        ),
    ],
)
def test_names_that_fit_nothing_are_refused_before_work_begins(
    data: Path, tmp_path: Path, change: str, message: str
) -> None:
    assert refused(ConfigError, load_recipe(plain_recipe(data, tmp_path), [change])) == message


@pytest.mark.parametrize(
    "change", ["pattern: bread", "pattern: 'bread|soup', min_texts: 99", "lang: de, pattern: 'a|e'"]
)
def test_texts_of_fewer_than_two_forms_are_refused_before_work_begins(data: Path, tmp_path: Path, change: str) -> None:
    asked = {"corpus": "invented", "lang": "en", **yaml.safe_load(f"{{{change}}}")}
    message = refused(EmptyInput, load_recipe({**plain_recipe(data, tmp_path), "forms": asked}))
    count = 60 if asked["lang"] == "en" else 0
    assert message.startswith(f"forms: invented has {count} texts in {asked['lang']} and fewer than two forms")


def test_a_teacher_whose_language_is_left_out_is_refused(data: Path, tmp_path: Path, teacher: dict[str, str]) -> None:
    plain = plain_recipe(data, tmp_path)
    recipe = load_recipe(
        {**plain, "training": {**plain["training"], "teachers": [teacher]}, "exclude_languages": ["en"]}
    )  # fmt: skip
    assert refused(ConfigError, recipe) == (
        "training.pivot: no text of corpora is in en; write it as a BCP-47 tag, as in 'en' for eng_Latn; "
        "found jpn, kor, zho"
    )


def test_a_teacher_of_other_languages_is_refused(data: Path, tmp_path: Path, teacher: dict[str, str]) -> None:
    plain = plain_recipe(data, tmp_path)
    stranger = {**teacher, "languages": ["sw", "deu_Latn"]}
    recipe = load_recipe({**plain, "training": {**plain["training"], "teachers": [stranger]}})
    assert refused(ConfigError, recipe) == (
        "training.teachers: no text of corpora is in a language of topic words (sw, deu_Latn); found eng, jpn, kor, zho"
    )


def test_teachers_stand_side_by_side_each_with_the_mean_over_its_languages(
    data: Path, tmp_path: Path, teacher: dict[str, str]
) -> None:
    plain = plain_recipe(data, tmp_path)
    other = {"model": "hashing", "name": "n-grams", "license": "none", "languages": ["zh", "kor"]}
    recipe = load_recipe({**plain, "training": {**plain["training"], "teachers": [teacher, other]}})
    texts, _ = pipeline._training_texts(recipe)
    found = teacher_vectors(texts, recipe.training, tmp_path, Display(Console(file=io.StringIO())))
    assert found is not None
    assert found.shape == (60, 8 + 512)
    for part in (found[:, :8], found[:, 8:]):
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), 1, atol=1e-5)
    rows = texts.to_pylist()
    sides = [[row["text"] for row in rows if row["lang"] == lang] for lang in ("zho", "kor")]
    means = np.mean([load_encoder("hashing").encode(side) for side in sides], axis=0)
    expected = means - means.mean(axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found[:, 8:], expected, atol=1e-5)


def test_a_teacher_with_fewer_dimensions_is_refused(data: Path, tmp_path: Path, teacher: dict[str, str]) -> None:
    plain = plain_recipe(data, tmp_path)
    recipe = load_recipe({**plain, "training": {**plain["training"], "teachers": [teacher]}})
    with pytest.raises(ConfigError) as caught:
        train_encoder(recipe, Display(Console(file=io.StringIO())))
    assert str(caught.value) == (
        "training.dim: 16 is more than the 8 dimensions of topic words; lower it, or take another teacher"
    )


def test_corpora_to_score_on_that_are_missing_are_found_out_before_the_training(data: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost.jsonl"
    message = refused(EmptyInput, load_recipe(plain_recipe(data, tmp_path), [f"scores.scored.path={lost}"]))
    assert message == (
        f"corpora.scored.path: no file matches {lost}; check the path, the glob and the variables"
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["folder", "file", "link", "dangling link", "foreign model"])
def test_what_this_did_not_make_is_never_replaced(
    trained: tuple[Any, ...], data: Path, tmp_path: Path, kind: str
) -> None:
    target, precious = tmp_path / "tiny", tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    if kind == "folder":
        shutil.copytree(precious, target)
    elif kind == "file":
        target.write_text("years of work")
    elif kind == "link":
        target.symlink_to(trained[0], target_is_directory=True)
    elif kind == "dangling link":
        target.symlink_to(tmp_path / "nowhere")
    else:
        save_teacher(target)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    assert refused(ConfigError, load_recipe(plain_recipe(data, tmp_path))) == (
        f"output: {target} exists and is not a model that an earlier training wrote (modules.json and scores.json); "
        "choose another name or output, or move it away"
    )
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_the_job_refuses_a_bad_recipe_with_exit_code_2_and_an_empty_stdout(data: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text(yaml.safe_dump(plain_recipe(data, tmp_path / "out")))
    done = subprocess.run(
        job(recipe, tmp_path / "home", "--set", "training.favoured=[deu]"),
        env=clean_environment(tmp_path / "home"), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: training.favoured: deu not in the corpora; found ['eng', 'jpn', 'kor', 'zho']\n"
    )  # fmt: skip
    assert not (tmp_path / "out").exists()
