"""How an adapter is updated once usage has drifted: ``update`` in the config."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from compass_ray.configbase import EXECUTION, Config, OneOf
from compass_ray.update.methods import METHODS

MethodName = Annotated[str, OneOf(METHODS)]


class UpdateConfig(Config):
    """What an update is made for, and what it may cost of what the champion knows.

    The weights of penalty and replay are those of the paper (COMPASS-ECDA); the rest are choices of ours.
    """

    when: Annotated[Literal["drift", "always"], EXECUTION] = Field(
        default="drift", description="Which languages are updated: those that have drifted, or all with a champion"
    )
    method: MethodName = Field(
        default="ecda",
        description="naive: go on from the champion with new data; replay: with a part of what it was trained on mixed "
        "in; ewc: with a penalty on moving weights that mattered; ecda: with that penalty and replay; fresh: a new "
        "adapter on all that the champion was trained on and new data",
    )
    new_fraction: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of new usage in the usage that data are selected for; the rest is what the champion was "
        "made for",
    )
    budget: int | None = Field(
        default=None, ge=1, description="Documents to select for each language; sample.budget if not given"
    )
    ewc_weight: float = Field(
        default=2.0, ge=0, description="Of the penalty (lambda); elastic weight consolidation, Kirkpatrick et al. 2017"
    )
    fisher_decay: float = Field(
        default=0.9, ge=0, le=1, description="What is left of earlier champions' Fisher information at each update"
    )
    replay_weight: float = Field(default=0.1, ge=0, description="Of the loss on replayed documents (beta), for ecda")
    replay_fraction: float = Field(
        default=0.1, gt=0, lt=1, description="Replayed packs among those of an update of the weights"
    )
