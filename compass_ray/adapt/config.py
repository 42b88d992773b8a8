"""What is trained, on what, how, and on which workers: ``adapt`` in the config.

How work is spread over workers is execution, not identity: the global batch and the loss do not depend on it, so a
training that was interrupted may go on with another number of workers or another ZeRO stage.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from compass_ray.configbase import EXECUTION, Config
from compass_ray.languages import canonical_language, language_refusal

Schedule = Literal["linear", "cosine", "constant", "constant_with_warmup", "inverse_sqrt", "polynomial"]


class LoraConfig(Config):
    """The adapter: low-rank updates of the base's linear layers."""

    method: Literal["lora", "rslora", "dora"] = Field(
        default="lora",
        description="LoRA (Hu et al. 2021), rank-stabilised (Kalajdzievski 2023), weight-decomposed (Liu et al. 2024)",
    )
    rank: int = Field(default=16, ge=1, le=512, description="Of the updates")
    alpha: float = Field(default=32, gt=0, description="Updates are scaled by alpha / rank (rslora: / sqrt(rank))")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Part of an update's inputs left out in training")
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = Field(
        default="all-linear", description="Names of the layers that get an update; all linear ones but the output"
    )


class TrainingConfig(Config):
    """Optimisation. All of it decides what comes out."""

    epochs: int = Field(default=3, ge=1, description="Passes over the training rows")
    max_steps: int | None = Field(default=None, ge=1, description="Fewer updates than the epochs would give")
    batch_size: int = Field(
        default=16, ge=1, description="Packs of max_length tokens in one update, whatever the number of workers"
    )
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak of the schedule")
    schedule: Schedule = Field(default="cosine", description="How the learning rate falls after its peak")
    warmup_fraction: float = Field(default=0.03, ge=0, lt=1, description="Part of the updates before the peak")
    weight_decay: float = Field(default=0.0, ge=0, description="Of AdamW")
    clip_norm: float = Field(default=1.0, gt=0, description="Longer gradients are scaled to this length")
    eval_steps: int | None = Field(default=None, ge=1, description="Updates between evaluations on the mixture")
    patience: int | None = Field(
        default=None, ge=1, description="Evaluations without a better loss on the mixture before training stops"
    )

    @model_validator(mode="after")
    def _patience_needs_evaluations(self) -> TrainingConfig:
        if self.patience is not None and self.eval_steps is None:
            raise ValueError("patience counts evaluations: set eval_steps as well")
        return self


class WorkersConfig(Config):
    """The worker group of one training, and what DeepSpeed does on it."""

    count: int = Field(default=1, ge=1, description="Workers that train one adapter together")
    num_cpus: int = Field(default=1, ge=1, description="CPUs and CPU threads of one worker")
    num_gpus: Literal[0, 1] = Field(default=0, description="1 trains on GPUs, 0 on CPUs")
    zero_stage: Literal[1, 2, 3] = Field(default=2, description="ZeRO (Rajbhandari et al. 2020); 3 shards the base too")
    offload: Literal["none", "optimizer", "optimizer+base"] = Field(
        default="none", description="What GPUs keep in host memory; the base needs zero_stage 3"
    )
    micro_batch: int = Field(default=1, ge=1, description="Packs that one worker passes through the model at once")
    gradient_checkpointing: bool = Field(default=False, description="Recompute activations: less memory, more time")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    check_memory: bool = Field(
        default=True, description="Refuse to start where a GPU has less memory than is predicted (an upper bound)"
    )
    max_failures: int = Field(default=2, ge=0, description="Worker groups that may be lost before a training fails")
    checkpoint_steps: int = Field(default=100, ge=1, description="Updates between checkpoints")
    log_steps: int = Field(default=10, ge=1, description="Updates between reports to Ray Train and the tracker")
    parallel_languages: int | None = Field(
        default=None, ge=1, description="Worker groups at once; as many as the cluster holds if not given"
    )

    @model_validator(mode="after")
    def _offload_fits(self) -> WorkersConfig:
        if self.offload != "none" and not self.num_gpus:
            raise ValueError("offload moves state out of GPU memory: set num_gpus to 1 or offload to none")
        if self.offload == "optimizer+base" and self.zero_stage != 3:
            raise ValueError("offload of the base needs zero_stage 3")
        return self


class TrackerConfig(Config):
    """Where training curves go besides the run's folder."""

    kind: Literal["none", "tensorboard", "mlflow"] = "none"
    uri: str | None = Field(
        default=None, description="Folder of TensorBoard logs, or MLflow tracking URI; needed by both"
    )
    experiment: str = Field(default="compass_ray", description="MLflow experiment")

    @model_validator(mode="after")
    def _uri_where_needed(self) -> TrackerConfig:
        if (self.kind == "none") != (self.uri is None):
            raise ValueError("kind and uri go together: give both, or neither")
        return self


class AdaptConfig(Config):
    """One adapter per language on one base model."""

    base: Annotated[str, EXECUTION] = Field(description="Base model: a local folder, or a hub id 'owner/name'")
    revision: Annotated[str | None, EXECUTION] = Field(
        default=None, description="Commit of a hub model; required for a hub id"
    )
    languages: Annotated[list[str] | None, EXECUTION] = Field(
        default=None, description="Which languages get an adapter; all that have data if not given"
    )
    run: Annotated[str | None, EXECUTION] = Field(
        default=None, description="Folder of a finished curation run; if not given, the run of this config"
    )
    chat_template: Annotated[str | None, EXECUTION] = Field(
        default=None, description="File with a chat template, for bases whose tokenizer has none"
    )
    template_date: date = Field(
        default=date(2025, 1, 1), description="What a chat template is told that asks for today's date"
    )
    max_length: int = Field(default=2048, ge=8, description="Tokens of a pack; longer documents are cut")
    packing: bool = Field(default=True, description="Several documents in a pack, without attention across them")
    heldout_fraction: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Share of documents that only scores see; equal content is on one side in all languages",
    )
    heldout_documents: int = Field(
        default=500, ge=1, description="Held-out documents of a language, at most, and scored rows of its usage"
    )
    replay_fraction: float = Field(
        default=0.05, ge=0, le=1, description="Share of the training documents kept with a version for later updates"
    )
    dtype: Literal["auto", "bfloat16", "float32", "nf4"] = Field(
        default="auto", description="Of the base: bfloat16 on GPUs and float32 on CPUs; nf4 is 4-bit (bitsandbytes)"
    )
    lora: LoraConfig = LoraConfig()
    training: TrainingConfig = TrainingConfig()
    workers: Annotated[WorkersConfig, EXECUTION] = WorkersConfig()
    tracker: Annotated[TrackerConfig, EXECUTION] = TrackerConfig()

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: list[str] | None) -> list[str] | None:
        if value is None:
            return None
        tags = {code: canonical_language(code) for code in value}
        if unknown := [code for code, tag in tags.items() if tag is None]:
            raise ValueError("; ".join(map(language_refusal, unknown)))
        return sorted({tag for tag in tags.values() if tag})

    @model_validator(mode="after")
    def _four_bits_stay_whole(self) -> AdaptConfig:
        if self.dtype == "nf4" and (self.workers.zero_stage == 3 or not self.workers.num_gpus):
            raise ValueError("a 4-bit base is for GPUs and is not sharded: set workers.num_gpus 1, zero_stage 1 or 2")
        return self

    @property
    def device(self) -> str:
        """``cuda`` or ``cpu``."""
        return "cuda" if self.workers.num_gpus else "cpu"

    @property
    def compute_dtype(self) -> str:
        """The dtype of activations: ``bfloat16`` or ``float32``."""
        if self.dtype in ("auto", "nf4"):
            return "bfloat16" if self.workers.num_gpus else "float32"
        return self.dtype
