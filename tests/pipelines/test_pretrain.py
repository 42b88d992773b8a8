"""A small base model from scratch: it learns, it loads, and it has not seen what it should not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from demo import DEMO
from trees import tree_bytes

from compass_ray.adapt.scores import Score
from compass_ray.errors import ConfigError
from compass_ray.pipelines.pretrain import load_base_recipe, pretrain

pytestmark = pytest.mark.usefixtures("local_ray")

VOCABULARY = 600


def recipe(output: Path, *overrides: str) -> Any:
    columns = {"text": "text", "lang": "lang"}
    raw = {
        "name": "small",
        "output": str(output),
        "sources": {"texts": {"role": "pool", "path": str(DEMO / "current.jsonl"), "columns": columns}},
        "exclude_languages": ["ta"],
        "ingest": {"max_bad_fraction": 0.02},
        "model": {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 4},
        "max_length": 64,
        "heldout_documents": 20,
        "training": {"batch_size": 4, "epochs": 4, "learning_rate": 0.01},
        "workers": {"checkpoint_steps": 5},
    }  # fmt: skip
    return load_base_recipe(raw, overrides)


@pytest.fixture(scope="module")
def pretrained(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Score]:
    folder, score = pretrain(recipe(tmp_path_factory.mktemp("pretrained")))
    assert score is not None
    return folder, score


@pytest.mark.release
def test_a_pretrained_base_predicts_better_than_chance_and_loads(pretrained: tuple[Path, Score]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, score = pretrained
    assert score.loss < 0.95 * math.log(VOCABULARY)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    tokens = tokenizer("Watoto wanacheza nje.", return_tensors="pt")
    assert tokenizer.decode(tokens["input_ids"][0]) == "Watoto wanacheza nje."
    with torch.no_grad():
        assert torch.isfinite(model(**tokens).logits).all()
    assert tokenizer.chat_template


@pytest.mark.release
def test_documents_of_an_excluded_language_are_not_gathered(pretrained: tuple[Path, Score]) -> None:
    gathered = list(pretrained[0].parent.glob("cache/gather-*/*.parquet"))
    languages = {lang for path in gathered for lang in pq.read_table(path, columns=["lang"])["lang"].to_pylist()}
    assert languages
    assert "ta" not in languages


@pytest.mark.release
def test_a_model_that_exists_is_not_written_over(pretrained: tuple[Path, Score]) -> None:
    folder, _ = pretrained
    before = tree_bytes(folder)
    with pytest.raises(ConfigError, match=r"small exists; choose another name or output"):
        pretrain(recipe(folder.parent, "training.epochs=1"))
    assert tree_bytes(folder) == before


def test_a_language_to_exclude_that_no_source_has_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"exclude_languages: wo not in the sources; found .*\bsw\b"):
        pretrain(recipe(tmp_path, "exclude_languages=[ta, wo]"))
    assert not list(tmp_path.glob("work-*"))


def test_a_view_is_refused_where_conversations_are_read_whole(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ingest: Value error, view: a base model is trained on whole conversations"):
        recipe(tmp_path, "ingest.view=prompt")
