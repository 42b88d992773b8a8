"""What one Ray Train worker does: train and score the adapters of several languages, one after the other.

A worker starts in ten seconds and more (torch, DeepSpeed, the base), so one group of workers takes several languages.
The base is loaded anew for each: nothing of one training can reach the next. A language that fails leaves a note and
does not stop the others; a worker that dies takes the group with it, and the group's next start finds finished
languages done and the unfinished one at its last checkpoint.
"""

from __future__ import annotations

import gc
import math
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
from compass_ray.adapt.scores import Score
from compass_ray.adapt.tokenizer import base_folder
from compass_ray.adapt.training.adapter_files import WEIGHTS, adapter_files, load_adapter
from compass_ray.adapt.training.checkpoints import Checkpoints, agreed, train_resumably
from compass_ray.adapt.training.engine import ZeroEngine, deepspeed_config, prepare_process
from compass_ray.adapt.training.fisher import FISHER, diagonal_fisher, fisher_bytes, read_fisher
from compass_ray.adapt.training.loop import Replay, Task, accumulation_with, evaluate
from compass_ray.adapt.training.model import load_base, with_adapter
from compass_ray.adapt.training.penalty import Penalty
from compass_ray.adapt.training.reporter import Reporter
from compass_ray.artifacts import Artifact, digest, to_parquet
from compass_ray.configbase import identity
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


@dataclass(frozen=True, eq=False)
class Start:
    """An adapter that a training begins with, and what keeps the training from losing what it knows.

    Attributes
    ----------
    weights : bytes
        Its ``adapter_model.safetensors``.
    strength : float
        Lambda of the penalty (see ``penalty``). With 0 the penalty is measured, and changes nothing.
    fisher : bytes or None
        Of ``fisher.fisher_bytes``: what the penalty weighs changes by, over all generations. No penalty without it.
    replay : Replay or None
        With a weight of 0 it is left out.

    Raises
    ------
    ValueError
        If the strength is out of its range, or there is nothing to weigh changes by.
    ArtifactCorrupt
        If ``fisher`` is something else.
    """

    weights: bytes
    strength: float = 0.0
    fisher: bytes | None = None
    replay: Replay | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise ValueError(f"penalty: expected a finite strength of at least 0, found {self.strength}")
        if self.fisher is not None:
            read_fisher(self.fisher)
        elif self.strength:
            raise ValueError(f"penalty: a strength of {self.strength} needs the Fisher information of the adapter")

    @property
    def replayed(self) -> Replay | None:
        """What is replayed, if anything."""
        return self.replay if self.replay and self.replay.weight else None

    def identity(self) -> dict[str, Any]:
        """List all that may change what is trained, as plain JSON."""
        replay = self.replay
        return {
            "weights": digest(self.weights),
            "strength": self.strength,
            "fisher": None if self.fisher is None else digest(self.fisher),
            "replay": None
            if replay is None
            else {
                "packs": packs_digest(replay.packs),
                "chance": digest(replay.chance.astype("<f8").tobytes()),
                "weight": replay.weight,
                "per_step": replay.per_step,
            },
        }


def packs_digest(packs: Packs) -> str:
    """Compute a hash of packs."""
    return digest(to_parquet(packs.to_table()))


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
    start : Start or None
        Without one, the training begins with a fresh adapter.
    """

    lang: str
    tokens: Artifact
    adapter: Artifact
    scores: Artifact
    scored: tuple[Scored, ...]
    start: Start | None = None


@dataclass(frozen=True, eq=False)
class FisherJob:
    """The Fisher information of one adapter: from what it is computed, and where it goes.

    Attributes
    ----------
    lang : str
    weights : bytes
        The adapter's ``adapter_model.safetensors``.
    packs : Packs
        Of one document each.
    documents : list of str
        Ids in hex of the documents that packs number.
    target : Artifact
    """

    lang: str
    weights: bytes
    packs: Packs
    documents: list[str]
    target: Artifact


@dataclass(frozen=True)
class Settings:
    """What all jobs of a run share."""

    config: AdaptConfig
    base: BaseRef
    seed: int
    pad_token: int
    name: str

    def model_identity(self, folder: Path) -> dict[str, Any]:
        """List what decides the numbers of the base in ``folder`` with an adapter on it, as plain JSON."""
        config = self.config
        return {
            "base": self.base.weights_hash,
            "base_config": digest((folder / "config.json").read_bytes()),
            "lora": identity(config.lora),
            "device": config.device,
            "dtype": config.dtype if config.dtype == "nf4" else config.compute_dtype,
        }


def train_group(loop: Mapping[str, Any]) -> None:
    """Run a worker group's jobs, as the train function of Ray Train.

    It takes ``settings``, ``jobs`` and ``tally`` (see ``runtime.tally``).
    """
    settings: Settings = loop["settings"]
    folder = _prepare(settings)
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


def fisher_group(loop: Mapping[str, Any]) -> None:
    """Compute the Fisher information of an adapter, as the train function of Ray Train.

    It takes ``settings``, ``job`` (a :class:`FisherJob`) and ``tally``.
    """
    settings: Settings = loop["settings"]
    job: FisherJob = loop["job"]
    folder = _prepare(settings)
    first = dist.get_rank() == 0
    if agreed(first and job.target.exists()):
        return
    try:
        _compute_fisher(folder, job, settings, loop["tally"])
    except AdaptationError as exc:  # found out by all workers at the same place
        if first:
            loop["tally"].note.remote("failed", exc)


def _compute_fisher(folder: Path, job: FisherJob, settings: Settings, tally: Any) -> None:
    config, first = settings.config, dist.get_rank() == 0
    plan = deepspeed_config(config.training, config.workers, config.compute_dtype, 1)
    model = with_adapter(load_base(folder, config, plan), config, settings.seed, job.lang)
    load_adapter(model, job.weights)
    engine = ZeroEngine(model, config.training, plan)

    def report(done: int) -> None:
        if first:
            tally.set.remote(job.lang, done)

    try:
        fisher = diagonal_fisher(engine, job.packs, job.documents, settings.pad_token, job.lang, report)
    finally:
        engine.close()
    if first:
        documents = int((job.packs.trained > 0).sum())
        data = fisher_bytes(fisher, documents)
        job.target.commit([job.target.write_bytes(FISHER, data, rows=documents)])


def _prepare(settings: Settings) -> Path:
    """Set up this worker, and find the base."""
    config = settings.config
    prepare_process(config.device)
    set_threads(config.workers.num_cpus)
    folder = base_folder(config)
    _check_base(folder, settings.base)
    if config.device == "cuda" and config.workers.check_memory:
        check_fits(estimate_for(config), torch.cuda.get_device_properties(0).total_memory, config)
    return folder


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
    replay = job.start.replayed if job.start else None
    accumulation = accumulation_with(
        replay, config.training.batch_size, dist.get_world_size(), config.workers.micro_batch
    )
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
    begins, penalty = None, None
    if job.start is not None:
        load_adapter(model, job.start.weights)
        begins = {name: param.detach().clone() for name, param in model.named_parameters() if param.requires_grad}
        if job.start.fisher is not None:
            penalty = Penalty(job.start.strength, read_fisher(job.start.fisher), begins)
            penalty.check(begins)
    task = Task(
        job.lang,
        read_packs(job.tokens, job.lang, TRAIN),
        read_packs(job.tokens, job.lang, HELDOUT),
        trained_documents(job.tokens, job.lang),
        config.training,
        settings.seed,
        config.workers.micro_batch,
        settings.pad_token,
        job.start.replayed if job.start else None,
        penalty,
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
        start=begins,
    )
    try:
        files = adapter_files(model, weights, settings.base.name, settings.base.revision)
    except AdaptationError:
        engine.close()
        raise
    if dist.get_rank() == 0:
        schema = records.CURVE if job.start is None else records.UPDATE_CURVE
        curve = [{name: entry.get(name) for name in schema.names} for entry in state.curve]
        seconds = sum(entry["seconds"] for entry in state.curve)
        summary = {"steps": state.step, "loss": state.curve[-1]["loss"], "seconds": round(seconds, 3)}
        receipts = [job.adapter.write_bytes(name, data) for name, data in files.items()]
        receipts.append(job.adapter.write(CURVE, pa.Table.from_pylist(curve, schema=schema), summary))
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
