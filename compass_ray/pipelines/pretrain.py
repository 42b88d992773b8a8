"""Pretrain: texts -> a small base model that adapters can be trained on where no model hub is reached."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow.compute as pc
from pydantic import Field, field_validator

from compass_ray.adapt import data
from compass_ray.adapt.config import AdaptConfig, TrainingConfig, WorkersConfig
from compass_ray.adapt.schedule import Schedule
from compass_ray.adapt.scores import Score
from compass_ray.adapt.tokenizer import TokenizerSource
from compass_ray.adapt.training import pretraining
from compass_ray.adapt.training.pretraining import TinyModel
from compass_ray.artifacts import Artifact, canonical_json, digest
from compass_ray.config import read_config
from compass_ray.configbase import EXECUTION, Config, LocalFolder, identity
from compass_ray.errors import ConfigError
from compass_ray.ingest import stage as ingestion
from compass_ray.ingest.config import IngestConfig, SourceConfig
from compass_ray.languages import canonical_language
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import Session, session

VERSION = 1
_TARGET_LANG = "base"
_WEIGHTS = "model.safetensors"
_SAMPLE = 20_000
"""Documents that the tokenizer learns from, at most; it sees the first of every shard, which a hash has shuffled."""


class BaseRecipe(Config):
    """Everything that makes a small base model."""

    name: str = Field(default="tiny-base", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    output: Annotated[LocalFolder, EXECUTION] = Field(
        description="Folder for the model and what it is made from; on several nodes, on a disk that all of them see"
    )
    seed: int = Field(default=0, ge=0)
    sources: dict[str, SourceConfig] = Field(min_length=1, description="Texts to train on, of any role")
    exclude_languages: list[str] = Field(default=[], description="Left out of training whatever a source calls them")
    ingest: IngestConfig = IngestConfig()
    model: TinyModel = TinyModel()
    max_length: int = Field(default=256, ge=8, description="Tokens of a pack")
    heldout_documents: int = Field(default=200, ge=1)
    dtype: str = Field(default="float32", pattern="^(float32|bfloat16|float16)$", description="Of the stored weights")
    training: TrainingConfig = TrainingConfig(learning_rate=3e-3, weight_decay=0.01, epochs=1)
    workers: Annotated[WorkersConfig, EXECUTION] = WorkersConfig()
    ray: Annotated[RayConfig, EXECUTION] = RayConfig()

    @field_validator("ingest")
    @classmethod
    def _whole_conversations(cls, value: IngestConfig) -> IngestConfig:
        if "view" in value.model_fields_set:
            raise ValueError("view: a base model is trained on whole conversations; remove it")
        return value


def load_base_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> BaseRecipe:
    """Read and check a recipe; as :func:`compass_ray.load_config`."""
    return read_config(BaseRecipe, source, overrides, {})[0]


def pretrain(recipe: BaseRecipe, display: Display | None = None) -> tuple[Path, Score | None]:
    """Train a small causal language model from random weights.

    An interrupted training goes on from its last checkpoint; the model folder appears whole at ``<output>/<name>``.

    Returns
    -------
    folder : Path
        A transformers model with its tokenizer: give it as ``adapt.base``.
    score : Score or None
        On held-out documents of the training mixture.

    Raises
    ------
    CompassError
        ``ConfigError`` and ``EmptyInput`` before any work, ``NonFiniteLoss`` if training diverges,
        ``ResourcesMissing`` if the workers do not fit into the cluster.
    """
    final = Path(recipe.output) / recipe.name
    if final.exists():
        raise ConfigError(f"name: {final} exists; choose another name or output, or move it away")
    with session(recipe.output, recipe.ray, display, recipe.name) as opened:
        score = _pretrain(recipe, final, opened)
    return final, score


def _pretrain(recipe: BaseRecipe, final: Path, session: Session) -> Score | None:
    import ray

    from compass_ray.adapt.training.trainer import fit_workers, group_count
    from compass_ray.runtime.cluster import ray_errors
    from compass_ray.runtime.tally import watched

    session.connect()
    group_count(recipe.workers, 1)
    plan = ingestion.plan(recipe.sources, recipe.ingest.model_copy(update={"view": "full"}), session.output)
    manifest = ingestion.ingest(plan, recipe.ingest, session)
    ingestion.check_usable(manifest, recipe.ingest, (), plan.sizes)
    excluded = _excluded(recipe, {lang for _, _, lang in ingestion.document_counts(manifest)})
    gathered = data.gather(plan.artifact, None, session, target_lang_of_all=_TARGET_LANG, without=excluded)

    folder = Path(recipe.output) / f"work-{_fingerprint(recipe, gathered)}"
    _write_untrained(folder, recipe, gathered)
    source = TokenizerSource(_as_adapt(recipe, folder), None)
    tokens = data.tokenize(gathered, [_TARGET_LANG], source, recipe.seed, session)
    training = recipe.training
    packs = data.counts_of(tokens, _TARGET_LANG)["packs"]
    schedule = Schedule(packs, training.batch_size, training.epochs, training.max_steps, recipe.seed)
    with watched(session.display, "pretrain", schedule.steps, "updates") as tally, ray_errors():
        loop = {
            "folder": str(folder),
            "checkpoints": str(folder / "checkpoints"),
            "target_lang": _TARGET_LANG,
            "tokens": tokens,
            "seed": recipe.seed,
            "dtype": recipe.dtype,
            "training": recipe.training,
            "workers": recipe.workers,
            "tally": tally,
        }
        fit_workers(pretraining.train_base, loop, recipe.workers, session.output, folder.name)
        score = ray.get(tally.notes.remote()).get("score")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    folder.rename(final)
    return None if score is None else Score.from_json(score)


def _excluded(recipe: BaseRecipe, found: set[str]) -> frozenset[str]:
    excluded = {code: canonical_language(code) for code in recipe.exclude_languages}
    if absent := [code for code, tag in excluded.items() if tag not in found]:
        raise ConfigError(
            f"exclude_languages: {', '.join(absent)} not in the sources; found {', '.join(sorted(found))}"
        )
    return frozenset(tag for tag in excluded.values() if tag)


def _fingerprint(recipe: BaseRecipe, gathered: Artifact) -> str:
    body = {"version": VERSION, "recipe": identity(recipe), "texts": gathered.fingerprint}
    return digest(canonical_json(body).encode(), size=10)


def _write_untrained(folder: Path, recipe: BaseRecipe, gathered: Artifact) -> None:
    """Write tokenizer and config, unless an interrupted run has left them."""
    from transformers import AutoTokenizer

    if (folder / "config.json").exists():
        return
    pretraining.write_tokenizer(folder, _sample(gathered), recipe.model.vocab_size)
    vocab_size = len(AutoTokenizer.from_pretrained(str(folder)))
    pretraining.write_config(folder, recipe.model, vocab_size)  # last: its presence says that both are whole


def _sample(gathered: Artifact) -> Iterator[str]:
    receipts = gathered.manifest().receipts
    for key in receipts:
        rows = gathered.read(key, ["text", "messages"]).slice(0, -(-_SAMPLE // len(receipts)))
        yield from (text for text in rows.filter(pc.is_null(rows["messages"]))["text"].to_pylist())
        for messages in rows.filter(rows["messages"].is_valid())["messages"].to_pylist():
            yield from (message["content"] for message in messages)


def _as_adapt(recipe: BaseRecipe, folder: Path) -> AdaptConfig:
    """Turn the recipe into what tokenising needs to know."""
    return AdaptConfig(
        base=str(folder),
        max_length=recipe.max_length,
        heldout_documents=recipe.heldout_documents,
        replay_fraction=0,
        training=recipe.training,
    )
