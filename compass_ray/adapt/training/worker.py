"""What one Ray Train worker does: train and score the adapters of several languages, one after the other.

A worker starts in ten seconds and more (torch, DeepSpeed, the base), so one group of workers takes several languages.
The base is loaded anew for each: nothing of one training can reach the next. A language that fails leaves a note and
does not stop the others; a worker that dies takes the group with it, and the group's next start finds finished
languages done and the unfinished one at its last checkpoint.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
import torch.distributed as dist

from compass_ray import records
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.data import HELDOUT, TRAIN, read_packs, trained_documents
from compass_ray.adapt.packing import Packs
from compass_ray.adapt.preflight import check_fits, estimate_for
from compass_ray.adapt.schedule import accumulation_steps
from compass_ray.adapt.scores import Score
from compass_ray.adapt.tokenizer import base_folder
from compass_ray.adapt.training.adapter_files import WEIGHTS, adapter_files, load_adapter
from compass_ray.adapt.training.checkpoints import Checkpoints, agreed, train_resumably
from compass_ray.adapt.training.engine import ZeroEngine, deepspeed_config, prepare_process
from compass_ray.adapt.training.loop import Task, evaluate
from compass_ray.adapt.training.model import load_base, with_adapter
from compass_ray.adapt.training.reporter import Reporter
from compass_ray.artifacts import Artifact
from compass_ray.errors import AdaptationError, IncompatibleAdapter
from compass_ray.models import BaseRef, weights_hash
from compass_ray.runtime.threads import set_threads

CURVE, SCORES = "curve", "scores"

BaseScores = dict[tuple[str, str], Score | None]
"""Scores of the base by language and part: they are the same for every adapter."""


@dataclass(frozen=True)
class Scored:
    """Documents that an adapter is scored on.

    Attributes
    ----------
    measures : str
        One of ``records.MEASURES``.
    lang, part : str
        Where their packs are.
    in_language : int
        How many of them are in that language.
    """

    measures: str
    lang: str
    part: str
    in_language: int


@dataclass(frozen=True)
class Job:
    """One language: where its tokens are, and where its adapter and scores go.

    Attributes
    ----------
    lang : str
    tokens : Artifact
        What ``data.tokenize`` has made.
    adapter, scores : Artifact
    scored : tuple of Scored
    """

    lang: str
    tokens: Artifact
    adapter: Artifact
    scores: Artifact
    scored: tuple[Scored, ...]


@dataclass(frozen=True)
class Settings:
    """What all jobs of a run share."""

    config: AdaptConfig
    base: BaseRef
    seed: int
    pad_token: int
    name: str


def train_group(loop: Mapping[str, Any]) -> None:
    """Run a worker group's jobs, as the train function of Ray Train.

    It takes ``settings``, ``jobs`` and ``tally`` (see ``runtime.tally``).
    """
    settings: Settings = loop["settings"]
    config = settings.config
    prepare_process(config.device)
    set_threads(config.workers.num_cpus)
    folder = base_folder(config)
    _check_base(folder, settings.base)
    if config.device == "cuda" and config.workers.check_memory:
        check_fits(estimate_for(config), torch.cuda.get_device_properties(0).total_memory, config)
    first = dist.get_rank() == 0
    base_scores: BaseScores = {}
    for job in loop["jobs"]:
        if agreed(first and _finished(job)):
            continue
        if first:
            loop["tally"].note.remote(f"current:{loop['jobs'][0].lang}", job.lang)
        try:
            _run(folder, job, settings, base_scores, loop["tally"])
        except AdaptationError as exc:  # found out by all workers at the same place
            if first:
                loop["tally"].note.remote(f"failed:{job.lang}", exc)
        gc.collect()


def _check_base(folder: Path, expected: BaseRef) -> None:
    found = weights_hash(folder)
    if found != expected.weights_hash:
        raise IncompatibleAdapter(
            f"adapt.base: on this node {folder} has weights {found}, where the run started with "
            f"{expected.weights_hash}; put the same model on every node"
        )


def _finished(job: Job) -> bool:
    return job.adapter.exists() and job.scores.exists()


def _run(folder: Path, job: Job, settings: Settings, base_scores: BaseScores, tally: Any) -> None:
    """Train unless the adapter is finished, then score."""
    config = settings.config
    first = dist.get_rank() == 0
    accumulation = accumulation_steps(config.training.batch_size, dist.get_world_size(), config.workers.micro_batch)
    plan = deepspeed_config(config.training, config.workers, config.compute_dtype, accumulation)
    model = with_adapter(load_base(folder, config, plan), config, settings.seed, job.lang)
    finished = agreed(job.adapter.read_bytes(WEIGHTS) if first and job.adapter.exists() else None)
    if finished is None:
        engine = _train(model, job, settings, plan, tally)
    else:
        load_adapter(model, finished)
        engine = ZeroEngine(model, config.training, plan)
    try:
        _score(engine, job, settings, base_scores)
    finally:
        engine.close()


def _train(model: Any, job: Job, settings: Settings, plan: dict[str, Any], tally: Any) -> ZeroEngine:
    config = settings.config
    task = Task(
        job.lang,
        read_packs(job.tokens, job.lang, TRAIN),
        read_packs(job.tokens, job.lang, HELDOUT),
        trained_documents(job.tokens, job.lang),
        config.training,
        settings.seed,
        config.workers.micro_batch,
        settings.pad_token,
    )
    checkpoints = Checkpoints(f"{job.adapter.url}/_training")
    engine, weights, state = train_resumably(
        model,
        task,
        plan,
        checkpoints,
        lambda engine: Reporter(engine, task, config.workers, config.tracker, settings.name, tally),
        config.workers.checkpoint_steps,
        packing=config.packing,
    )
    try:
        files = adapter_files(model, weights, settings.base.name, settings.base.revision)
    except AdaptationError:
        engine.close()
        raise
    if dist.get_rank() == 0:
        curve = [{name: entry.get(name) for name in records.CURVE.names} for entry in state.curve]
        seconds = sum(entry["seconds"] for entry in state.curve)
        summary = {"steps": state.step, "loss": state.curve[-1]["loss"], "seconds": round(seconds, 3)}
        receipts = [job.adapter.write_bytes(name, data) for name, data in files.items()]
        receipts.append(job.adapter.write(CURVE, pa.Table.from_pylist(curve, schema=records.CURVE), summary))
        job.adapter.commit(receipts)
        checkpoints.clear()
    return engine


def _score(engine: ZeroEngine, job: Job, settings: Settings, base_scores: BaseScores) -> None:
    config = settings.config
    rows = []
    for scored in job.scored:
        packs = read_packs(job.tokens, scored.lang, scored.part)

        def score(packs: Packs = packs) -> Score | None:
            return evaluate(engine, packs, config.workers.micro_batch, settings.pad_token)

        place = scored.lang, scored.part
        if place not in base_scores:
            with engine.model.disable_adapter():
                base_scores[place] = score()
        measured = {"adapter": job.lang, "measures": scored.measures, "lang": scored.lang}
        rows.append(measured | _score_row(base_scores[place], score(), scored.in_language))
    if dist.get_rank() == 0:
        job.scores.commit([job.scores.write(SCORES, pa.Table.from_pylist(rows, schema=records.SCORE))])


def _score_row(before: Score | None, after: Score | None, in_language: int) -> dict[str, Any]:
    """Make the figures of a row. Without documents to measure they are null."""
    if before is None or after is None:
        return {"documents": 0, "in_language": 0}
    return {
        "documents": after.documents,
        "in_language": in_language,
        "tokens": after.tokens,
        "bytes": after.n_bytes,
        **{f"base_{name}": getattr(before, name) for name in ("loss", "perplexity", "bits_per_byte")},
        **{name: getattr(after, name) for name in ("loss", "perplexity", "bits_per_byte")},
    }
