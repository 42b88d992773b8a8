"""Pass, fail or undecided: what the losses of champion and candidate say, and why.

A candidate has to be better on the usage that it was made for, and no worse than a margin on former usage and on texts
that must not be unlearned. Few documents are never called a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray.errors import DataError
from compass_ray.gate.comparison import Comparison, compare
from compass_ray.gate.config import GateConfig
from compass_ray.gate.pairs import Paired, independent, pair

Outcome = Literal["pass", "fail", "undecided"]
Vector = NDArray[np.float64]

_SHOWN = 5


@dataclass(frozen=True)
class Line:
    """One finding.

    Attributes
    ----------
    about : str
        ``losses``, ``new_usage``, ``former_usage``, ``clusters`` or ``other``.
    lang : str or None
        Of other texts.
    outcome : {"pass", "fail", "undecided"} or None
        None where nothing was tested, and the text says so.
    text : str
        What was found, in a plain sentence. Intervals are of the gain: above zero is better.
    comparison : Comparison or None
    """

    about: str
    outcome: Outcome | None
    text: str
    lang: str | None = None
    comparison: Comparison | None = None

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON."""
        return {
            "about": self.about,
            "lang": self.lang,
            "outcome": self.outcome,
            "text": self.text,
            "comparison": None if self.comparison is None else self.comparison.to_json(),
        }


@dataclass(frozen=True)
class ClusterGain:
    """The gain in one cluster of former usage.

    Attributes
    ----------
    cluster : int
    share : float or None
        Of reference usage; None where there is no reference.
    documents : int
        Different ones.
    mean : float
        Bits per byte.
    comparison : Comparison or None
        None where there are too few documents for a test.
    p_value : float or None
        Of the hypothesis that it is no worse than the margin, adjusted for all clusters that were tested (Holm, 1979).
    worse : bool
        Whether it is worse than the margin, beyond chance.
    """

    cluster: int
    share: float | None
    documents: int
    mean: float
    comparison: Comparison | None = None
    p_value: float | None = None
    worse: bool = False

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON."""
        return {
            "cluster": self.cluster,
            "share": None if self.share is None else round(self.share, 6),
            "documents": self.documents,
            "mean": round(self.mean, 6),
            "comparison": None if self.comparison is None else self.comparison.to_json(),
            "p_value": None if self.p_value is None else round(self.p_value, 6),
            "worse": self.worse,
        }


@dataclass(frozen=True)
class Verdict:
    """What a gate says.

    Attributes
    ----------
    outcome : {"pass", "fail", "undecided"}
        ``fail`` if any line does, ``pass`` if all that were tested pass.
    lines : tuple of Line
    clusters : tuple of ClusterGain
        Of former usage, by number.
    covered : float or None
        Share of reference usage that lies in clusters with held-out documents; None without a reference.
    """

    outcome: Outcome
    lines: tuple[Line, ...]
    clusters: tuple[ClusterGain, ...] = ()
    covered: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Give plain JSON."""
        return {
            "outcome": self.outcome,
            "lines": [line.to_json() for line in self.lines],
            "clusters": [one.to_json() for one in self.clusters],
            "covered": None if self.covered is None else round(self.covered, 6),
        }


def judge(
    losses: pa.Table, reference: NDArray[Any] | None, config: GateConfig, seed: int, *, champion: str, candidate: str
) -> Verdict:
    """Judge whether a candidate may replace the champion.

    On new usage the lower end of the gain's interval has to be above zero (superiority). On former usage and on other
    texts of each language it has to be at or above ``-margin`` (non-inferiority); an upper end on the wrong side is a
    failure, anything else undecided. Former usage is weighted as reference usage was: a document by the share of its
    cluster over the number of held-out documents there. Beside that, each of its clusters with enough documents fails
    the gate if it is worse than the margin, by a one-sided test with Holm's correction (1979). All tests have to pass,
    so that a pass needs no correction for their number. A candidate whose gain on former usage is ``-margin`` exactly
    passed that test with 60 documents in 14 of 400 simulations with normal gains, and in 18 where a few documents
    become much worse (``tests/gate/test_judge.py``).

    Parameters
    ----------
    losses : Table of schema LOSS
        Of one target language, with rows of both on the same documents.
    reference : ndarray of shape (n_clusters + 1,) or None
        Documents or shares of reference usage by cluster, the outlier bin last; not negative. None if it is not known:
        then all former usage weighs alike.
    config : GateConfig
    seed : int
        Of the run; the draws of each test follow from it and from what is tested.
    champion, candidate : str
        As in the column ``adapter``.

    Raises
    ------
    DataError
        If both were not measured on the same documents, or former usage is not of the reference's clusters.
    """
    paired = pair(losses, champion, candidate)
    test = _Test(config, seed)
    former = paired.rows.filter(pc.equal(paired.rows["measures"], "former_usage"))
    lines = [*_losses(paired), _new_usage(paired.rows, test)]
    whole, covered = _former_usage(former, reference, test)
    clusters = _clusters(former, reference, test)
    lines += [whole, *_cluster_lines(clusters, len(former), reference, config), *_other(paired.rows, test)]
    return Verdict(_overall(lines), tuple(lines), clusters, covered)


@dataclass(frozen=True)
class _Test:
    """How rows are compared, in this run."""

    config: GateConfig
    seed: int

    def __call__(self, rows: pa.Table, weights: Vector, *purpose: str) -> Comparison:
        config = self.config
        return compare(
            *independent(rows, weights),
            self.seed,
            *purpose,
            confidence=config.confidence,
            resamples=config.resamples,
            threshold=-config.margin,
        )


def _overall(lines: Sequence[Line]) -> Outcome:
    outcomes = {line.outcome for line in lines if line.outcome is not None}
    if "fail" in outcomes:
        return "fail"
    return "pass" if outcomes == {"pass"} else "undecided"


def _losses(paired: Paired) -> list[Line]:
    lines = []
    if wrong := paired.not_finite:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        lines.append(Line("losses", "fail", f"losses: not a number for {wrong[0]}{more}"))
    if paired.empty:
        lines.append(
            Line("losses", None, f"losses: {paired.empty} documents are not tested, because their tokens spell nothing")
        )
    return lines


def _new_usage(rows: pa.Table, test: _Test) -> Line:
    mine = rows.filter(pc.equal(rows["measures"], "new_usage"))
    if not len(mine):
        return Line("new_usage", "undecided", "new usage: none, so nothing shows that the candidate is better")
    found = test(mine, np.ones(len(mine)), "new_usage")
    text = f"new usage: {_told(found)}"
    if found.documents < test.config.min_documents:
        return Line("new_usage", "undecided", f"{text}; {_too_few(test.config)}", comparison=found)
    outcome: Outcome = "pass" if found.low > 0 else "fail" if found.high <= 0 else "undecided"
    return Line("new_usage", outcome, text, comparison=found)


def _former_usage(former: pa.Table, reference: NDArray[Any] | None, test: _Test) -> tuple[Line, float | None]:
    """Test former usage as a whole, and compute the share of the reference that it covers."""
    if not len(former):
        text = "former usage: none, so nothing shows that the candidate is no worse"
        return Line("former_usage", "undecided", text), None if reference is None else 0.0
    weights, covered = np.ones(len(former)), None
    note = "; all documents weigh alike, since nothing is known of reference usage"
    if reference is not None:
        shares = _shares(reference)
        cluster = _numbers(former, len(shares))
        held_out = np.bincount(cluster, minlength=len(shares))
        weights, covered = shares[cluster] / held_out[cluster], float(shares[held_out > 0].sum())
        note = f"; they cover {covered:.0%} of reference usage"
    heavy = weights > 0
    if not heavy.any():
        text = "former usage: no document in a cluster that reference usage is in, so nothing shows that it is no worse"
        return Line("former_usage", "undecided", text), covered
    found = test(former.filter(pa.array(heavy)), weights[heavy], "former_usage")
    line = _no_worse("former_usage", None, "former usage", found, note, test.config)
    if covered is not None and covered < test.config.min_covered and line.outcome == "pass":
        least = f"; at least {test.config.min_covered:.0%} is needed (gate.min_covered)"
        line = replace(line, outcome="undecided", text=line.text + least)
    return line, covered


def _other(rows: pa.Table, test: _Test) -> list[Line]:
    mine = rows.filter(pc.equal(rows["measures"], "other"))
    if not len(mine):
        return [Line("other", None, "other texts: not tested, there are none (gate.texts)")]
    langs = mine["lang"].to_pylist()
    lines = []
    for lang in sorted(set(langs), key=str):
        of_lang = mine.filter(pa.array([each == lang for each in langs]))
        found = test(of_lang, np.ones(len(of_lang)), "other", str(lang))
        name = "other texts" if lang is None else f"other texts in '{lang}'"
        lines.append(_no_worse("other", lang, name, found, "", test.config))
    return lines


def _no_worse(about: str, lang: str | None, name: str, found: Comparison, note: str, config: GateConfig) -> Line:
    text = f"{name}: {_told(found)}{note}; margin {config.margin:g}"
    if found.effective < config.min_documents:
        if found.documents >= config.min_documents:
            text += f"; by their weights they count as {found.effective:.0f}"
        return Line(about, "undecided", f"{text}; {_too_few(config)}", lang, found)
    outcome: Outcome = "pass" if found.low >= -config.margin else "fail" if found.high < -config.margin else "undecided"
    return Line(about, outcome, text, lang, found)


def _clusters(former: pa.Table, reference: NDArray[Any] | None, test: _Test) -> tuple[ClusterGain, ...]:
    known = former.filter(former["cluster"].is_valid())
    shares = None if reference is None else _shares(reference)
    cluster = np.asarray(known["cluster"].to_numpy(), np.int64)
    found = []
    for number in map(int, np.unique(cluster)):
        rows = known.filter(pa.array(cluster == number))
        gains, weights, _ = independent(rows, np.ones(len(rows)))
        mean = float(np.average(gains, weights=weights))
        one = None
        if len(gains) >= test.config.min_cluster_documents:
            one = test(rows, np.ones(len(rows)), "cluster", str(number))
        share = None if shares is None else float(shares[number])
        found.append(ClusterGain(number, share, len(gains), mean, one))
    return tuple(_holm(found, 1 - test.config.confidence))


def _holm(clusters: Sequence[ClusterGain], level: float) -> list[ClusterGain]:
    """Adjust the p-values of the clusters that were tested for their number (Holm, 1979)."""
    tested = sorted((one.comparison.p_worse, one.cluster) for one in clusters if one.comparison is not None)
    adjusted: dict[int, float] = {}
    last = 0.0
    for rank, (p_worse, cluster) in enumerate(tested):
        last = adjusted[cluster] = min(1.0, max(last, p_worse * (len(tested) - rank)))
    return [
        replace(one, p_value=adjusted[one.cluster], worse=adjusted[one.cluster] <= level)
        if one.cluster in adjusted
        else one
        for one in clusters
    ]


def _cluster_lines(
    clusters: Sequence[ClusterGain], documents: int, reference: NDArray[Any] | None, config: GateConfig
) -> list[Line]:
    if not documents:
        return []
    tested = [one for one in clusters if one.comparison is not None]
    if not tested:
        text = (
            f"clusters of former usage: not tested, none holds {config.min_cluster_documents} documents "
            "(gate.min_cluster_documents)"
        )
        return [Line("clusters", None, text)]
    worse = sorted((one for one in tested if one.worse), key=lambda one: one.mean)
    lines = []
    for one in worse[:_SHOWN]:
        found = one.comparison
        if found is not None:
            text = f"{_called(one.cluster, reference)}: {_told(found)}; margin {config.margin:g}"
            lines.append(Line("clusters", "fail", text, comparison=found))
    count = f"{len(worse) or 'none'} of {len(tested)} tested, worse than the margin beyond chance"
    return [*lines, Line("clusters", "fail" if worse else "pass", f"clusters of former usage: {count}")]


def _called(cluster: int, reference: NDArray[Any] | None) -> str:
    if reference is not None and cluster == len(reference) - 1:
        return "former usage far from every cluster"
    return f"former usage in cluster {cluster}"


def _shares(reference: NDArray[Any]) -> Vector:
    weights = np.asarray(reference, np.float64)
    if weights.ndim != 1 or not np.isfinite(weights).all() or (weights < 0).any() or not weights.sum() > 0:
        raise DataError(
            "reference usage: expected documents by cluster, not negative and not all zero; judge without a reference, "
            "or by the histogram of the champion's reference usage"
        )
    shares: Vector = weights / weights.sum()
    return shares


def _numbers(former: pa.Table, bins: int) -> NDArray[np.int64]:
    """Look up the cluster of each row, which has to be one of the reference's."""
    if unknown := former["cluster"].null_count:
        raise DataError(
            f"former usage: {unknown} of {len(former)} documents have no cluster; assign them to the codebook of the "
            "reference, or judge without a reference"
        )
    cluster = np.asarray(former["cluster"].to_numpy(), np.int64)
    if cluster.min() < 0 or cluster.max() >= bins:
        raise DataError(
            f"former usage: clusters from {cluster.min()} to {cluster.max()}, but the reference has {bins} bins from "
            "0; assign both by one codebook"
        )
    return cluster


def _told(found: Comparison) -> str:
    word = "better" if found.mean >= 0 else "worse"
    if found.is_bounded:
        interval = f"[{found.low:.3f}, {found.high:.3f}]"
    elif found.blocks < 2:
        interval = "[unknown: all of one block]"
    else:
        interval = "[unknown: too few blocks, or all documents alike]"
    blocks = f" in {found.blocks} blocks" if found.blocks < found.documents else ""
    return f"{abs(found.mean):.3f} bits a byte {word} {interval}, {found.documents} documents{blocks}"


def _too_few(config: GateConfig) -> str:
    return f"at least {config.min_documents} are needed (gate.min_documents)"
