"""Drift, stable or insufficient: what windows of usage say of each target language, and why.

An alarm needs two keys: a difference that is no chance, over all target languages of a window, and one that is large
enough to matter even at the lower end of its interval. Few documents are never called stable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from compass_ray import seeding
from compass_ray.divergence import contributions
from compass_ray.monitor.config import MonitorConfig
from compass_ray.monitor.drift import Novelty, Shift, novelty, shift
from compass_ray.monitor.separation import Separation
from compass_ray.monitor.windows import histogram

Verdict = Literal["drift", "stable", "insufficient"]
Counts = NDArray[np.int64]

_CLUSTERS_SHOWN = 5


@dataclass(frozen=True)
class Reference:
    """What usage of a target language was.

    Attributes
    ----------
    origin : str
        Where that is written down: a run's folder, or an adapter version.
    counts : ndarray of shape (n_clusters + 1,), int64
        Its documents by cluster, the outlier bin last.
    labels : mapping of cluster to str
        Names of clusters, as far as they are known.
    """

    origin: str
    counts: Counts
    labels: Mapping[int, str] = field(default_factory=dict)


@dataclass
class Judged:
    """One window of one target language; ``change`` is None where there are too few documents to judge it by."""

    start: datetime | None
    counts: Counts
    change: tuple[Shift, Novelty] | None = None
    separation: Separation | None = None
    verdict: Verdict = "insufficient"

    def tests(self, config: MonitorConfig) -> list[tuple[float, bool]]:
        """List the p-value of each test, and whether what it is of is large."""
        if self.change is None:
            return []
        divergence, new = self.change
        found = [
            (divergence.p_value, divergence.low >= config.min_divergence),
            (new.p_value, new.low >= config.min_novelty),
        ]
        if self.separation is not None:
            found.append((self.separation.p_value, self.separation.low >= config.min_auc))
        return found


def comparable(
    windows: pa.Table, references: Mapping[str, Reference], config: MonitorConfig
) -> dict[tuple[str, datetime | None], int]:
    """Count the documents of each window, by target language and start, that is large enough to be judged."""
    total = windows.group_by(["target_lang", "start"], use_threads=False).aggregate([("documents", "sum")])
    found = {(row["target_lang"], row["start"]): row["documents_sum"] for row in total.to_pylist()}
    enough = {target_lang for target_lang, one in references.items() if one.counts.sum() >= config.min_reference}
    return {key: count for key, count in found.items() if key[0] in enough and count >= config.min_documents}


def judge(
    windows: pa.Table,
    references: Mapping[str, Reference],
    config: MonitorConfig,
    seed: int,
    separations: Mapping[tuple[str, datetime | None], Separation] | None = None,
) -> dict[str, dict[str, Any]]:
    """Judge what became of usage, by target language.

    Parameters
    ----------
    windows : Table of schema WINDOW
        Of all target languages that have new usage.
    references : mapping of target language to Reference
    config : MonitorConfig
    seed : int
        Of the run; the draws of a window follow from it, its target language and its start.
    separations : mapping of (str, datetime) to Separation, optional
        What vectors say of a window, by target language and start, where reference usage has left some.

    Returns
    -------
    dict
        Plain JSON by target language: ``verdict``, ``reference``, ``windows`` in order of time and ``notes``. A target
        language that is in one of the two alone is ``insufficient``.
    """
    target_langs = sorted({*windows["target_lang"].to_pylist(), *references})
    enough = comparable(windows, references, config)
    judged = {
        target_lang: _windows_of(target_lang, windows, references.get(target_lang), enough, seed)
        for target_lang in target_langs
    }
    for target_lang, mine in judged.items():
        for window in mine:
            window.separation = (separations or {}).get((target_lang, window.start))
    _apply_false_discovery_rate(judged, config)
    return {
        target_lang: _report(target_lang, judged[target_lang], windows, references.get(target_lang), config)
        for target_lang in target_langs
    }


def _windows_of(
    target_lang: str,
    windows: pa.Table,
    reference: Reference | None,
    enough: Collection[tuple[str, datetime | None]],
    seed: int,
) -> list[Judged]:
    mine = windows.filter(pc.equal(windows["target_lang"], target_lang))
    found = []
    for start in sorted(set(mine["start"].to_pylist()), key=str):
        rows = _rows_of(mine, start)
        n_clusters = int(pc.max(rows["cluster"]).as_py()) if reference is None else len(reference.counts) - 1
        one = Judged(start, histogram(rows["cluster"], rows["documents"], n_clusters))
        if reference is not None and (target_lang, start) in enough:
            rng = np.random.default_rng(seeding.child_seed(seed, "monitor", target_lang, str(start)))
            one.change = shift(reference.counts, one.counts, rng), novelty(reference.counts, one.counts)
        found.append(one)
    return found


def _rows_of(windows: pa.Table, start: datetime | None) -> pa.Table:
    column = windows["start"]
    return windows.filter(pc.is_null(column) if start is None else pc.equal(column, pa.scalar(start, column.type)))


def _apply_false_discovery_rate(judged: Mapping[str, list[Judged]], config: MonitorConfig) -> None:
    """Give windows that were compared their verdict; chance is reckoned over all tests of one span of time."""
    by_start: dict[datetime | None, list[Judged]] = {}
    for window in (window for mine in judged.values() for window in mine):
        if window.change is not None:
            by_start.setdefault(window.start, []).append(window)
    for together in by_start.values():
        tests = [(window, *test) for window in together for test in window.tests(config)]
        adjusted = false_discovery_control(np.array([p_value for _, p_value, _ in tests]))
        for window in together:
            window.verdict = "stable"
        for (window, _, large), p_value in zip(tests, adjusted, strict=True):
            if large and p_value <= config.false_discovery_rate:
                window.verdict = "drift"


def _report(
    target_lang: str, judged: Sequence[Judged], windows: pa.Table, reference: Reference | None, config: MonitorConfig
) -> dict[str, Any]:
    latest = [window.verdict for window in judged if window.verdict != "insufficient"][-config.among :]
    verdict: Verdict = "insufficient"
    if latest.count("drift") >= config.alarms:
        verdict = "drift"
    elif len(latest) - latest.count("drift") > config.among - config.alarms:
        verdict = "stable"  # whatever the windows that are missing would say
    mine = windows.filter(pc.equal(windows["target_lang"], target_lang))
    return {
        "verdict": verdict,
        "reference": None if reference is None else reference.origin,
        "reference_documents": 0 if reference is None else int(reference.counts.sum()),
        "windows": [_window_as_json(window, _rows_of(mine, window.start), reference) for window in judged],
        "notes": _notes(target_lang, judged, reference, verdict, config),
    }


def _notes(
    target_lang: str, judged: Sequence[Judged], reference: Reference | None, verdict: Verdict, config: MonitorConfig
) -> list[str]:
    if reference is None:
        return [
            f"nothing is known of reference usage in '{target_lang}': curate with some of it as a source of role usage"
        ]
    before = int(reference.counts.sum())
    if before < config.min_reference:
        return [
            f"{before} documents of reference usage are too few to tell a change from chance: at least "
            f"{config.min_reference} (monitor.min_reference) are needed"
        ]
    if not judged:
        return [f"no new usage in '{target_lang}'"]
    notes = []
    if any(window.change is not None and window.separation is None for window in judged):
        notes.append(
            "reference usage has left no vectors, so that clusters alone are compared: see docs/howto/monitor.md"
        )
    small = [window for window in judged if window.verdict == "insufficient"]
    if small:
        notes.append(
            f"{len(small)} of {len(judged)} windows hold fewer than {config.min_documents} documents "
            "(monitor.min_documents)"
        )
    if verdict == "insufficient" and len(small) < len(judged):
        notes.append(
            f"{len(judged) - len(small)} windows could be judged, too few for {config.alarms} alarms among "
            f"{config.among} (monitor.alarms, monitor.among)"
        )
    return notes


def _window_as_json(window: Judged, rows: pa.Table, reference: Reference | None) -> dict[str, Any]:
    divergence, new = window.change or (None, None)
    return {
        "start": None if window.start is None else window.start.isoformat(),
        "documents": int(window.counts.sum()),
        "verdict": window.verdict,
        "divergence": _rounded(divergence),
        "novelty": _rounded(new),
        "separation": _rounded(window.separation),
        "clusters": [] if reference is None or window.change is None else _clusters(window, rows, reference),
    }


def _rounded(value: Shift | Novelty | Separation | None) -> dict[str, float] | None:
    if value is None:
        return None
    return {
        name: float(f"{number:.4g}") if name == "p_value" else round(number, 6)
        for name, number in asdict(value).items()
    }


def _clusters(window: Judged, rows: pa.Table, reference: Reference) -> list[dict[str, Any]]:
    """List the clusters that make the most of the divergence.

    Largest come first, each with a document of the window.
    """
    exemplars = dict(zip(rows["cluster"].to_pylist(), rows["exemplar"].to_pylist(), strict=True))
    labels = {**reference.labels, len(reference.counts) - 1: "far from every cluster"}
    before, now = reference.counts / reference.counts.sum(), window.counts / window.counts.sum()
    bits = contributions(before, now)
    return [
        {
            "cluster": cluster,
            "label": labels.get(cluster, f"cluster {cluster}"),
            "bits": round(float(bits[cluster]), 6),
            "share_before": round(float(before[cluster]), 6),
            "share": round(float(now[cluster]), 6),
            "exemplar": exemplars.get(cluster),
        }
        for cluster in map(int, np.argsort(-bits, kind="stable")[:_CLUSTERS_SHOWN])
        if bits[cluster] > 0
    ]
