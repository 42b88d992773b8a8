"""Does an encoder put the same thing said in two languages close together? Scores on parallel sentences.

All scores read unit vectors and know nothing of the encoder. Ties go to the lower row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray.errors import EmptyInput
from compass_ray.languages import canonical_language

Vectors = NDArray[np.float32]
Names = NDArray[np.str_]
Encode = Callable[[Sequence[str]], Vectors]


def retrieval_at_1(queries: Vectors, answers: Vectors) -> float:
    """Compute the fraction of queries whose nearest answer is the translation. The translation is in the same row.

    Parameters
    ----------
    queries, answers : ndarray of shape (n, d), float32
        Unit rows; row i of both says the same. Cost: n²·d.
    """
    nearest = (queries @ answers.T).argmax(axis=1)
    return float((nearest == np.arange(len(queries))).mean())


def topic_transfer(queries: Vectors, topics: Names, known: Vectors, known_topics: Names, neighbours: int = 7) -> float:
    """Compute the accuracy of the majority topic of the nearest known sentences. These are of another language.

    Parameters
    ----------
    queries : ndarray of shape (n, d), float32
    topics : ndarray of shape (n,), str
        What a perfect encoder would predict.
    known : ndarray of shape (m, d), float32
    known_topics : ndarray of shape (m,), str
    neighbours : int
        Votes; a tie goes to the topic of the nearest among the tied.
    """
    nearest = np.argsort(-(queries @ known.T), axis=1, kind="stable")[:, :neighbours]
    predicted = [_majority(known_topics[row]) for row in nearest]
    return float((np.array(predicted) == topics).mean())


def _majority(votes: Names) -> str:
    values, first, counts = np.unique(votes, return_index=True, return_counts=True)
    return str(values[np.lexsort((first, -counts))[0]])


def language_entropy(labels: NDArray[np.int32], languages: Names) -> float:
    """Measure how evenly clusters mix languages. It is the entropy of languages in a cluster over its maximum.

    The mean over rows, so a large cluster counts as much as its rows; 0 if each cluster is one language, 1 if
    each holds all languages in the proportions of the whole. The maximum is the entropy of the whole.

    Parameters
    ----------
    labels : ndarray of shape (n,), int
    languages : ndarray of shape (n,), str
    """
    _, codes = np.unique(languages, return_inverse=True)
    whole = _entropy(np.bincount(codes))
    if whole == 0:
        return 1.0
    total = sum(_entropy(np.bincount(codes[labels == label])) * (labels == label).sum() for label in np.unique(labels))
    return float(total / (len(labels) * whole))


def _entropy(counts: NDArray[np.intp]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


@dataclass(frozen=True)
class ParallelScores:
    """What an encoder scores on labelled parallel sentences, language by language against the pivot.

    Attributes
    ----------
    retrieval, topics : mapping of language to float
        :func:`retrieval_at_1` among the pivot's sentences; :func:`topic_transfer` from them.
    pivot_topics : float
        :func:`topic_transfer` within the pivot language.
    candidates : int
        Sentences to choose from in retrieval.
    """

    retrieval: Mapping[str, float]
    topics: Mapping[str, float]
    pivot_topics: float
    candidates: int

    def mean(self, languages: Collection[str] | None = None) -> tuple[float, float]:
        """Average retrieval and topic transfer over some languages, or all."""
        chosen = [lang for lang in self.retrieval if languages is None or lang in languages]
        return (
            sum(self.retrieval[lang] for lang in chosen) / len(chosen),
            sum(self.topics[lang] for lang in chosen) / len(chosen),
        )

    def worst(self, languages: Collection[str] | None = None) -> tuple[str, float]:
        """Find the language with the lowest retrieval, and its score."""
        chosen = [lang for lang in self.retrieval if languages is None or lang in languages]
        lang = min(chosen, key=lambda name: (self.retrieval[name], name))
        return lang, self.retrieval[lang]

    def as_dict(self) -> dict[str, Any]:
        """Convert the scores to plain values, rounded to four decimals."""
        return {
            "candidates": self.candidates,
            "pivot_topics": round(self.pivot_topics, 4),
            "languages": {
                lang: {"retrieval": round(self.retrieval[lang], 4), "topics": round(self.topics[lang], 4)}
                for lang in sorted(self.retrieval)
            },
        }


def parallel_scores(encode: Encode, known: pa.Table, scored: pa.Table, pivot: str) -> ParallelScores:
    """Score an encoder on sentences that are there in every language.

    Parameters
    ----------
    encode : callable
        Texts to unit vectors.
    known, scored : pyarrow.Table
        ``records.PARALLEL`` with labels: sentences whose topics are known, and those to be scored.
    pivot : str
        BCP-47 tag of the language against which the others are scored.
    """
    known_rows = _by_language(known)
    scored_rows = _by_language(scored)
    pivots = [lang for lang in scored_rows if canonical_language(lang) == pivot and lang in known_rows]
    if not pivots:
        raise EmptyInput(
            f"scores: no sentences in the pivot language {pivot}; found {', '.join(sorted(scored_rows))} in scored, "
            f"{', '.join(sorted(known_rows))} in known"
        )
    name = pivots[0]
    known_texts, known_labels, _ = known_rows[name]
    known_vectors = encode(known_texts)
    texts, labels, groups = scored_rows[name]
    answers = encode(texts)
    retrieval: dict[str, float] = {}
    topics: dict[str, float] = {}
    for lang, (others, their_labels, their_groups) in sorted(scored_rows.items()):
        if lang == name:
            continue
        vectors = encode(others)
        common, mine, theirs = np.intersect1d(groups, their_groups, return_indices=True)
        if not len(common):
            raise EmptyInput(f"scores: {lang} shares no sentence with {name}; check the key of scores.scored")
        retrieval[lang] = retrieval_at_1(vectors[theirs], answers[mine])
        topics[lang] = topic_transfer(vectors, their_labels, known_vectors, known_labels)
    own = topic_transfer(answers, labels, known_vectors, known_labels)
    return ParallelScores(retrieval, topics, own, len(groups))


def _by_language(table: pa.Table) -> dict[str, tuple[list[str], Names, NDArray[np.int64]]]:
    """Collect texts, labels and groups of each language, one text a group."""
    rows: dict[str, dict[int, tuple[str, str]]] = {}
    for group, lang, text, label in zip(
        *(table[name].to_pylist() for name in ("group", "lang", "text", "label")), strict=True
    ):
        rows.setdefault(lang, {}).setdefault(group, (text, label))
    return {
        lang: (
            [text for text, _ in found.values()],
            np.array([label for _, label in found.values()]),
            np.array(list(found), dtype=np.int64),
        )
        for lang, found in rows.items()
    }
