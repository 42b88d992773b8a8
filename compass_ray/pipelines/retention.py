"""What the trainings of an update begin with, and what keeps them from forgetting: replay, Fisher information."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records
from compass_ray.adapt.packing import Packs
from compass_ray.artifacts import Artifact, canonical_json, digest
from compass_ray.config import RunConfig
from compass_ray.errors import AdaptationError, ArtifactCorrupt, CompassError, ConfigError
from compass_ray.pipelines.base_model import BaseModel
from compass_ray.pipelines.champion import Champion
from compass_ray.pipelines.gap import Gap
from compass_ray.registry.contents import WEIGHTS
from compass_ray.registry.names import AdapterRef
from compass_ray.registry.store import Registry
from compass_ray.registry.version import AdapterVersion
from compass_ray.runtime.stage import Session
from compass_ray.update import buffer
from compass_ray.update.config import UpdateConfig
from compass_ray.update.methods import METHODS

if TYPE_CHECKING:
    from compass_ray.adapt.training.loop import Replay
    from compass_ray.adapt.training.worker import Start


@dataclass(frozen=True)
class Retention:
    """What one language's training begins with, and under which name its Fisher information is attached, if it has any.

    ``start`` is None for a new adapter.
    """

    start: Start | None
    fisher: str | None = None


def retain(
    config: RunConfig, base: BaseModel, champions: Sequence[Champion], gap: Gap, registry: Registry, session: Session
) -> tuple[dict[str, Retention], dict[str, CompassError]]:
    """Say what each language's training begins with, and what keeps it from forgetting.

    Rows that are held out now are neither replayed nor weighed by, though the champion was trained on them.

    Returns
    -------
    retained : dict of Retention by language
    failed : dict of CompassError by language
    """
    from compass_ray.adapt.training.worker import Start

    section, method = config.update, METHODS[config.update.method]
    if method.from_base:
        return {champion.lang: Retention(None) for champion in champions}, {}
    if not (method.penalized or method.replays):
        return {champion.lang: Retention(Start(champion.version.read(WEIGHTS))) for champion in champions}, {}
    unseen = _unseen(gap)
    wanted = {}
    for champion in champions:
        rows = buffer.recall(gap.documents, champion.reference.replay, session)
        wanted[champion.lang] = _without(rows, unseen, champion, session), champion.usage_shares()
    buffers = buffer.tokenize_buffers(wanted, base.source, session)
    retained: dict[str, Retention] = {}
    failed: dict[str, CompassError] = {}
    for champion in champions:
        lang = champion.lang
        try:
            _say_buffer(champion, buffer.counts_of(buffers, lang), session)
            name, fisher = None, None
            if method.penalized:
                name, fisher = _fisher(config, base, champion, buffers, registry, session)
            replay = _replay(section, base, lang, buffers) if method.replays else None
        except (AdaptationError, ConfigError, ArtifactCorrupt) as exc:  # of this language alone
            failed[lang] = exc
            continue
        strength = section.ewc_weight if method.penalized else 0.0
        start = Start(champion.version.read(WEIGHTS), strength=strength, fisher=fisher, replay=replay)
        retained[lang] = Retention(start, name)
    return retained, failed


def _unseen(gap: Gap) -> pa.Array:
    """List the ids of all documents that are held out now, or were before, by content."""
    held = [] if gap.usage is None else gap.usage.read_all(gap.usage.manifest().keys_with_rows)
    parts = [part["content_id"].combine_chunks() for part in held]
    return records.unique_ids([*parts, gap.unseen])


def _without(rows: pa.Table, unseen: pa.Array, champion: Champion, session: Session) -> pa.Table:
    held = pc.is_in(rows["content_id"], value_set=unseen)
    if count := int(pc.sum(held).as_py() or 0):
        session.display.say(
            f"update: {count:,} of {rows.num_rows:,} replay rows of {champion.version} are held-out usage now; they "
            "are left out"
        )
    return rows.filter(pc.invert(held))


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
) -> tuple[str, bytes]:
    """Read the champion's Fisher information, or compute it and keep it with the version.

    Where the champion was itself held to one before it, that one's counts too, less with every update (online EWC,
    Schwarz et al. 2018). So it follows from the lineage alone, whatever else has been tried.

    Returns
    -------
    name, data
        As it is attached to the version.
    """
    from compass_ray.adapt.fisher_stage import fisher_of, fit_fisher
    from compass_ray.adapt.training.fisher import fisher_bytes, read_fisher
    from compass_ray.adapt.training.penalty import decayed

    version, lang, decay = champion.version, champion.lang, config.update.fisher_decay
    key = buffer.key_of(lang, buffer.ALONE)
    before = _fisher_before(version, base, registry)
    name = fisher_name(buffers.manifest().receipts[key].hash, decay, before)
    if name in version.attached():
        return name, version.read_attached(name)
    alone, documents = Packs.from_table(buffers.read(key)), buffer.documents_of(buffers, lang)
    made = fit_fisher(lang, version.read(WEIGHTS), alone, documents, base.settings(config), base.folder, session)
    fisher = fisher_of(made)
    if before is not None:
        old = read_fisher(before[1])
        fisher = fisher_bytes(decayed(old, read_fisher(fisher), decay), len(documents))
    version.attach(name, fisher)
    return name, fisher


def _fisher_before(version: AdapterVersion, base: BaseModel, registry: Registry) -> tuple[str, bytes] | None:
    """Read the Fisher information that held the champion itself to the one before it. None if nothing did."""
    lineage = version.lineage
    name = lineage.config.get("update", {}).get("fisher")
    if name is None or lineage.parent is None:
        return None
    return name, registry.open(AdapterRef(base.ref.key, lineage.lang, lineage.parent)).read_attached(name)


def fisher_name(packs: str, decay: float, before: tuple[str, bytes] | None) -> str:
    """Name Fisher information by what it is made of: documents, and that of champions before and its decay."""
    body = canonical_json([packs, *([] if before is None else [decay, before[0]])])
    return f"fisher-{digest(body.encode(), size=8)}.safetensors"
