"""What the trainings of an update begin with, and what keeps them from forgetting: replay, Fisher information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compass_ray.adapt.packing import Packs
from compass_ray.artifacts import Artifact, digest
from compass_ray.config import RunConfig
from compass_ray.errors import ConfigError
from compass_ray.pipelines.base_model import BaseModel
from compass_ray.pipelines.champion import Champion
from compass_ray.registry.contents import WEIGHTS
from compass_ray.registry.names import AdapterRef
from compass_ray.registry.store import Registry
from compass_ray.runtime.stage import Session
from compass_ray.update import buffer
from compass_ray.update.config import UpdateConfig
from compass_ray.update.methods import METHODS

if TYPE_CHECKING:
    from compass_ray.adapt.training.loop import Replay
    from compass_ray.adapt.training.worker import Start


def starts_of(
    config: RunConfig,
    base: BaseModel,
    champions: Sequence[Champion],
    documents: Artifact,
    registry: Registry,
    session: Session,
) -> dict[str, Start]:
    """Say what each language's training begins with, and what keeps it from forgetting.

    Parameters
    ----------
    documents : Artifact
        Of the ingest stage: texts that a registry does not keep are looked for there.

    Raises
    ------
    ConfigError
        If a champion keeps nothing of its history, and the method needs some.
    """
    from compass_ray.adapt.training.worker import Start

    section, method = config.update, METHODS[config.update.method]
    if method.from_base:
        return {}
    weights = {champion.lang: champion.version.read(WEIGHTS) for champion in champions}
    if not (method.penalized or method.replays):
        return {lang: Start(data) for lang, data in weights.items()}
    wanted = {
        champion.lang: (buffer.recall(documents, champion.reference.replay, session), champion.usage_shares())
        for champion in champions
    }
    buffers = buffer.tokenize_buffers(wanted, base.source, session)
    starts = {}
    for champion in champions:
        lang = champion.lang
        _say_buffer(champion, buffer.counts_of(buffers, lang), session)
        fisher = _fisher(config, base, champion, buffers, registry, session) if method.penalized else None
        replay = _replay(section, base, lang, buffers) if method.replays else None
        strength = section.ewc_weight if method.penalized else 0.0
        starts[lang] = Start(weights[lang], strength=strength, fisher=fisher, replay=replay)
    return starts


def _say_buffer(champion: Champion, counts: Mapping[str, int], session: Session) -> None:
    """Say what is left of the champion's history. ConfigError if that is nothing."""
    if counts["without_text"]:
        session.display.say(
            f"update: {counts['without_text']:,} of {counts['rows']:,} replay rows of {champion.version} are known by "
            "id alone (registry.store_text: ids) and are not in the pool any more; they are left out"
        )
    if not counts["documents"]:
        raise ConfigError(
            f"update.method: {champion.version} keeps no document to replay or to weigh by; raise "
            "adapt.replay_fraction for the next adapter, and update this one with update.method=naive"
        )


def _replay(section: UpdateConfig, base: BaseModel, lang: str, buffers: Artifact) -> Replay:
    from compass_ray.adapt.training.loop import Replay

    ratio = section.replay_fraction / (1 - section.replay_fraction)
    return Replay(
        packs=Packs.from_table(buffers.read(buffer.key_of(lang, buffer.PACKED))),
        documents=buffer.documents_of(buffers, lang),
        chance=buffers.read(buffer.key_of(lang, buffer.CHANCE))["chance"].to_numpy(),
        weight=ratio if METHODS[section.method].weighs_alike else section.replay_weight,
        per_step=max(1, round(ratio * base.section.training.batch_size)),
    )


def _fisher(
    config: RunConfig, base: BaseModel, champion: Champion, buffers: Artifact, registry: Registry, session: Session
) -> bytes:
    """Read the champion's Fisher information, or compute it and keep it with the version.

    What champions before it had counts too, less with every update (online EWC, Schwarz et al. 2018).
    """
    from compass_ray.adapt.fisher_stage import fisher_of, fit_fisher
    from compass_ray.adapt.training.fisher import fisher_bytes, read_fisher
    from compass_ray.adapt.training.penalty import decayed

    version, lang, decay = champion.version, champion.lang, config.update.fisher_decay
    name = f"fisher-{digest(repr(decay).encode(), size=4)}.safetensors"
    if name in version.attached():
        return version.read_attached(name)
    alone = Packs.from_table(buffers.read(buffer.key_of(lang, buffer.ALONE)))
    documents = buffer.documents_of(buffers, lang)
    made = fit_fisher(lang, version.read(WEIGHTS), alone, documents, base.settings(config), base.folder, session)
    fisher, parent = fisher_of(made), version.lineage.parent
    if parent is not None:
        before = registry.open(AdapterRef(base.ref.key, lang, parent))
        if name in before.attached():
            old = read_fisher(before.read_attached(name))
            fisher = fisher_bytes(decayed(old, read_fisher(fisher), decay), len(documents))
    version.attach(name, fisher)
    return fisher
