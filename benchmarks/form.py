"""How much of the form of a text its cluster tells: of questions and statements, of what is asked for, of commands.

The same content in two forms, in one language of one corpus: an encoder of topics puts both into one cluster, one that
is ruled by function words puts all questions together. And questions of one language by their question word. The
measure is the normalised mutual information between cluster (k-means, 100 clusters) and form; chance is that of forms
shuffled (within pairs), which is not zero with so many clusters.
"""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

Pairs = list[tuple[str, str]]
Encode = Callable[[Sequence[str]], NDArray[np.float32]]

CLUSTERS = 100
_ASKED = {  # what asks, in three languages of EXAMS; the answer takes its place
    "Bulgarian": r"\b(кое|кой|кого|коя|кои|какво|какъв|каква|какви|колко|къде|кога|защо|как)\b"
    r"( от (изброените|посочените))?",
    "Italian": r"\b(in che modo|che cosa|quale|quali|qual|cosa|chi|quando|dove|quant[oaie]|perché|come|che)\b"
    r"( (tra|fra) (i|le|gli) seguenti| de(i|lle|gli) seguenti)?",
    "Turkish": r"\b((aşağıdaki\w*( \w+)? )?hangi\w*|nedir|ne(yi|ye|den|dir)?|kim\w*|nere\w*|nasıl|kaç\w*|niçin)\b",
}
_WORDS = {  # of questions, in three languages of AfriQA
    "en": r"\b(how many|how much|how|who|whom|whose|what|which|when|where|why)\b",
    "swa": r"\b(\w{0,2}ngapi|nani|nini|gani|lini|wapi|\w{1,2}pi|vipi|kwa nini|je)\b",
    "yor": r"\b(ta ni|tani|ki ni|kini|me\w{1,3}lo+|melo+|igba wo|nibo|ibo|wo|bawo)\b",
}
_TLDR = ("de", "it", "tr")


def exams(data: Path, language: str) -> Pairs:
    """Questions, and the same as statements: the answer in place of what asks, a full stop for the question mark."""
    asks = re.compile(_ASKED[language], re.IGNORECASE)
    pairs: dict[str, str] = {}
    for name in ("train", "dev"):
        for row in _rows(data / "exams" / f"{name}.jsonl.gz"):
            stem = row["question"]["stem"].strip()
            found = asks.search(stem)
            answers = [one["text"] for one in row["question"]["choices"] if one["label"] == row["answerKey"]]
            if row["info"]["language"] != language or not (stem.endswith("?") and found and answers):
                continue
            said = stem[: found.start()] + answers[0].strip(" .") + stem[found.end() : -1]
            pairs[stem] = said[0].upper() + said[1:].rstrip() + "."
    return list(pairs.items())


def tldr(data: Path, language: str) -> Pairs:
    """Instructions in words, and the commands that they ask for."""
    rows = _rows(data / "tldr_pages.jsonl.gz")
    return list({row["prompt"]: row["completion"] for row in rows if row["lang"] == language}.items())


def question_words(data: Path, language: str) -> tuple[list[str], NDArray[np.int64]]:
    """Questions of AfriQA with a question word, and the number of its first."""
    asks = re.compile(_WORDS[language], re.IGNORECASE)
    texts: dict[str, str] = {}
    for path in sorted((data / "afriqa").glob(f"*.{'*.en' if language == 'en' else f'{language}.*'}.*.jsonl.gz")):
        for row in _rows(path):
            text = _plain(row["translated_question" if language == "en" else "question"])
            if found := asks.search(text):
                texts[text] = found[0]
    return list(texts), np.unique(list(texts.values()), return_inverse=True)[1]


def of_pairs(encode: Encode, pairs: Pairs) -> tuple[float, float]:
    """Information of cluster and form, and by chance."""
    turned = np.random.default_rng(0).integers(0, 2, len(pairs))
    labels = _clusters(encode, [one for one, _ in pairs] + [other for _, other in pairs])
    return _information(labels, np.repeat([0, 1], len(pairs)), np.concatenate([turned, 1 - turned]))


def of_words(encode: Encode, texts: Sequence[str], words: NDArray[np.int64]) -> tuple[float, float]:
    """Information of cluster and question word, and by chance."""
    return _information(_clusters(encode, texts), words, np.random.default_rng(0).permutation(words))


def form_scores(encode: Encode, data: Path) -> dict[str, float]:
    """Each as the mean over three languages, above what chance gives."""
    parts = {
        "questions": [of_pairs(encode, exams(data, language)) for language in _ASKED],
        "commands": [of_pairs(encode, tldr(data, language)) for language in _TLDR],
        "question words": [of_words(encode, *question_words(data, language)) for language in _WORDS],
    }
    return {
        f"form NMI, {name}": round(float(np.mean([found - chance for found, chance in part])), 4)
        for name, part in parts.items()
    }


def _clusters(encode: Encode, texts: Sequence[str]) -> NDArray[np.int32]:
    return np.asarray(KMeans(n_clusters=CLUSTERS, n_init=3, random_state=0).fit_predict(encode(texts)))


def _information(labels: NDArray[Any], form: NDArray[Any], by_chance: NDArray[Any]) -> tuple[float, float]:
    return (
        float(normalized_mutual_info_score(form, labels)),
        float(normalized_mutual_info_score(by_chance, labels)),
    )


def _plain(text: str) -> str:
    """Without marks above and below letters, in lower case: Yoruba is written with and without."""
    return "".join(one for one in unicodedata.normalize("NFD", text) if not unicodedata.combining(one)).lower()


def _rows(path: Path) -> Iterator[Any]:
    with gzip.open(path) as stream:
        yield from map(json.loads, stream)
