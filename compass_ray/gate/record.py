"""What a gate said, for those who ask later: the body of ``gate.json``, and the refusal of a promotion."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from compass_ray.artifacts import canonical_json, digest
from compass_ray.errors import GateRefused
from compass_ray.gate.config import GateConfig
from compass_ray.gate.judge import Verdict
from compass_ray.models import BaseRef

SCHEMA_VERSION = 1

_NEXT = {
    "fail": "adapt again, with more replay of what became worse or more data for what did not become better",
    "undecided": "hold out more documents of what is undecided, and measure again",
}


def gate_record(
    verdict: Verdict,
    config: GateConfig,
    *,
    base: BaseRef,
    champion: str,
    candidate: str,
    seed: int,
    when: datetime,
    who: str,
    measured: Mapping[str, str],
) -> bytes:
    """Write the bytes of ``gate.json``.

    Parameters
    ----------
    base : BaseRef
        That both were measured on.
    champion, candidate : str
        Versions; the champion is ``base`` where there was none.
    when : datetime
        With a time zone; kept in UTC, to the second.
    who : str
        Who asked.
    measured : mapping of str to str
        Hashes of the data that were measured, by name.

    Returns
    -------
    bytes
        Canonical JSON. Of the config what a verdict follows from: texts are there by their hashes.
    """
    body = {
        "schema_version": SCHEMA_VERSION,
        **verdict.to_json(),
        "config": config.model_dump(mode="json", exclude={"texts"}),
        "base": {"key": base.key, "weights_hash": base.weights_hash},
        "champion": champion,
        "candidate": candidate,
        "seed": seed,
        "when": when.astimezone(UTC).isoformat(timespec="seconds"),
        "who": who,
        "measured": dict(measured),
    }
    return canonical_json(body).encode()


def record_name(record: bytes) -> str:
    """Name a record by its content, as it is attached to the candidate: ``gate-<hash>.json``."""
    return f"gate-{digest(record, 8)}.json"


def refusal(verdict: Verdict, *, champion: str, candidate: str) -> GateRefused:
    """Make the error that says why a candidate may not replace the champion.

    Parameters
    ----------
    verdict : Verdict
        One that did not pass.
    champion, candidate : str
        As people name them.
    """
    why = "; ".join(line.text for line in verdict.lines if line.outcome == verdict.outcome)
    found = "fails" if verdict.outcome == "fail" else "is undecided"
    return GateRefused(f"{candidate}: {found}, and {champion} stays champion: {why}. Next: {_NEXT[verdict.outcome]}")
