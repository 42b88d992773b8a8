"""Drift, stable or insufficient: what windows of usage say of each target language, and why.

Few documents are never called stable, nor is a window that is not over.

An alarm needs two keys: a difference that is no chance, over all target languages of a window, and one that is large
enough to matter even at the lower end of its interval.
"""

from __future__ import annotations

from collections import Counter
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
from compass_ray.monitor.windows import histogram, window_after, window_of

Verdict = Literal["drift", "stable", "insufficient", "cooldown"]
WindowVerdict = Literal["drift", "stable", "insufficient", "open", "stale"]
Window = tuple[str, datetime | None]
"""A target language and the start of a window."""
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
    made : datetime or None
        When the adapter was, which is of a registry.
    """

    origin: str
    counts: Counts
    labels: Mapping[int, str] = field(default_factory=dict)
    made: datetime | None = None


@dataclass
class Judged:
    """One window of one target language; ``change`` is None where it is not judged, and ``verdict`` says why."""

    start: datetime | None
    counts: Counts
    change: tuple[Shift, Novelty] | None = None
    separation: Separation | None = None
    verdict: WindowVerdict = "insufficient"

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


def comparable(windows: pa.Table, references: Mapping[str, Reference], config: MonitorConfig) -> dict[Window, int]:
    """Count the documents of each window, by target language and start, that can be judged.

    It is over, not too old, and like its reference large enough.
    """
    total = windows.group_by(["target_lang", "start"], use_threads=False).aggregate([("documents", "sum")])
    found = {(row["target_lang"], row["start"]): row["documents_sum"] for row in total.to_pylist()}
    enough = {target_lang for target_lang, one in references.items() if one.counts.sum() >= config.min_reference}
    passed = _passed_over(windows, config)
    return {
        key: count
        for key, count in found.items()
        if key[0] in enough and key[1] not in passed and count >= config.min_documents
    }


def _passed_over(windows: pa.Table, config: MonitorConfig) -> dict[datetime | None, WindowVerdict]:
    """Tell which windows do not count whatever they hold: the one that is open yet, and those that are too old.

    A window is over when the moment that is asked about (``as_of``) is after it, or else when there is a document of a
    later one in any language.
    """
    starts = set(windows["start"].to_pylist()) - {None}
    if config.period == "all" or not starts:
        return {}
    period, as_of = config.period, config.as_of
    latest = max(starts) if as_of is None else window_of(as_of, period)
    passed: dict[datetime | None, WindowVerdict] = {latest: "open"}
    if config.max_age is not None:
        oldest = window_after(latest, period, -config.max_age)
        passed |= {start: "stale" for start in starts if start < oldest}
    return passed


def judge(
    windows: pa.Table,
    references: Mapping[str, Reference],
    config: MonitorConfig,
    seed: int,
    separations: Mapping[Window, Separation] | None = None,
    refused: Mapping[str, str] | None = None,
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
    refused : mapping of target language to str, optional
        Why a language's reference cannot be used.

    Returns
    -------
    dict
        Plain JSON by target language: ``verdict``, ``since`` (when the first window began that makes it a drift),
        ``reference``, ``windows`` in order of time and ``notes``. A target
        language that is in one of the two alone is ``insufficient``.
    """
    refused = refused or {}
    target_langs = sorted({*windows["target_lang"].to_pylist(), *references, *refused})
    enough = comparable(windows, references, config)
    passed = _passed_over(windows, config)
    judged = {
        target_lang: _windows_of(target_lang, windows, references.get(target_lang), enough, seed)
        for target_lang in target_langs
    }
    for target_lang, mine in judged.items():
        for window in mine:
            window.verdict = passed.get(window.start, "insufficient")
            window.separation = (separations or {}).get((target_lang, window.start))
    _apply_false_discovery_rate(judged, config)
    return {
        target_lang: _report(
            target_lang, judged[target_lang], windows, references.get(target_lang), config, refused.get(target_lang)
        )
        for target_lang in target_langs
    }


def _windows_of(
    target_lang: str, windows: pa.Table, reference: Reference | None, enough: Collection[Window], seed: int
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
    target_lang: str,
    judged: Sequence[Judged],
    windows: pa.Table,
    reference: Reference | None,
    config: MonitorConfig,
    refused: str | None,
) -> dict[str, Any]:
    latest = [window for window in judged if window.change is not None][-config.among :]
    alarms = [window for window in latest if window.verdict == "drift"]
    verdict: Verdict = "insufficient"
    counted: list[Judged] = []
    if len(alarms) >= config.alarms:
        cooled = _cooled(reference, config)
        counted = [window for window in alarms if cooled is None or window.start is None or window.start >= cooled]
        verdict = "drift" if len(counted) >= config.alarms else "cooldown"
    elif len(latest) - len(alarms) > config.among - config.alarms:
        verdict = "stable"  # whatever the windows that are missing would say
    mine = windows.filter(pc.equal(windows["target_lang"], target_lang))
    return {
        "verdict": verdict,
        "since": _iso(counted[0].start) if verdict == "drift" else None,
        "reference": None if reference is None else reference.origin,
        "reference_documents": 0 if reference is None else int(reference.counts.sum()),
        "windows": [_window_as_json(window, _rows_of(mine, window.start), reference) for window in judged],
        "notes": [refused] if refused else _notes(target_lang, judged, reference, verdict, config),
    }


def _iso(start: datetime | None) -> str | None:
    return None if start is None else start.isoformat()


def _cooled(reference: Reference | None, config: MonitorConfig) -> datetime | None:
    """Tell from when on windows make a drift; None: always."""
    if not config.cooldown or reference is None or reference.made is None:
        return None
    return window_after(window_of(reference.made, config.period), config.period, config.cooldown)


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
    of = Counter(window.verdict for window in judged)
    if of["open"]:
        notes.append(
            "the latest window is not judged before it is over: a later document or moment (monitor.as_of) ends it"
        )
    if of["stale"]:
        notes.append(
            f"{of['stale']} of {len(judged)} windows began more than {config.max_age} periods before the latest "
            "(monitor.max_age), and do not count"
        )
    if of["insufficient"]:
        notes.append(
            f"{of['insufficient']} of {len(judged)} windows hold fewer than {config.min_documents} documents "
            "(monitor.min_documents)"
        )
    could = of["drift"] + of["stable"]
    if verdict == "insufficient" and could:
        notes.append(
            f"{could} windows could be judged, too few for {config.alarms} alarms among {config.among} "
            "(monitor.alarms, monitor.among)"
        )
    if verdict == "cooldown":
        notes.append(
            f"usage has moved in windows that began before {_cooled(reference, config):%Y-%m-%d}, which is no drift "
            f"yet: the adapter was made on {reference.made:%Y-%m-%d} (monitor.cooldown: {config.cooldown})"
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
