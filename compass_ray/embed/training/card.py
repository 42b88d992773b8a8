"""The card of a trained encoder: what it is, what it was made from, what it scores and what it cannot do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compass_ray.embed.evaluation import ParallelScores
from compass_ray.embed.training.config import EncoderTraining


@dataclass(frozen=True)
class CorpusRow:
    """One line of the card's table of training data."""

    name: str
    texts: int
    languages: int
    license: str
    url: str


def model_card(
    config: EncoderTraining,
    license: str,
    corpora: Sequence[CorpusRow],
    languages: Sequence[str],
    shape: tuple[int, ...],
    scores: ParallelScores,
) -> str:
    """Write the card in Markdown, with the metadata header that model hubs read."""
    retrieval, topics = scores.mean()
    lowest, lowest_score = scores.worst()
    teachers = " and ".join(f"{teacher.name} ({teacher.license})" for teacher in config.teachers)
    taught = (
        f"The vectors start from, and are drawn towards, those of {teachers}."
        if teachers
        else "No other model took part."
    )
    data = "\n".join(f"| [{row.name}]({row.url}) | {row.texts} | {row.languages} | {row.license} |" for row in corpora)
    favoured = ""
    if scored := [lang for lang in config.favoured if lang in scores.retrieval]:  # the pivot has no score
        mean_retrieval, mean_topics = scores.mean(scored)
        worst, worst_score = scores.worst(scored)
        favoured = (
            f"| the {len(scored)} favoured | {mean_retrieval:.3f} | {mean_topics:.3f} | {worst} {worst_score:.3f} |\n"
        )
    table = "\n".join(
        f"| {lang} | {scores.retrieval[lang]:.3f} | {scores.topics[lang]:.3f} |" for lang in sorted(scores.retrieval)
    )
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
license: {license}
language: [{", ".join(languages)}]
---
# A static multilingual sentence encoder

{shape[0]} pieces, {shape[1]} dimensions, eight-bit vectors with one scale a piece. A text is the mean of its pieces'
vectors, so it is fast, needs no GPU, and knows nothing of word order. Made by `jobs/train_encoder.py` of compass_ray.

## How it was trained

Letters of most scripts become Latin ones, a Unigram tokenizer cuts words into pieces, and the pieces' vectors are
trained so that translations come close and other texts do not (InfoNCE in the batch, {config.steps} steps of
{config.batch_groups} groups, {config.token_dropout:.0%} of tokens dropped, seed {config.seed}). {taught}

| corpus | texts | languages | licence |
|---|---|---|---|
{data}

## Scores

Retrieval: the translation in the pivot language ({config.pivot}) is the nearest of {scores.candidates}. Topics: the
majority of the 7 nearest pivot sentences whose topic is known. Within the pivot language topics reach
{scores.pivot_topics:.3f}.

| languages | retrieval@1 | topics | lowest retrieval |
|---|---|---|---|
| all {len(scores.retrieval)} | {retrieval:.3f} | {topics:.3f} | {lowest} {lowest_score:.3f} |
{favoured}
## Limits

- Negation, word order and fine distinctions are lost: it groups texts by what they are about.
- Languages differ widely, see below; those outside the training data rest on names, loan words and related languages.
- The sentences are encyclopaedic and journalistic; slang, dialogue and code are foreign to it.
- Text that has no known piece (emoji alone) gets no direction of its own.

## Every language

Trained on {len(languages)} languages. Scores by language:

| language | retrieval@1 | topics |
|---|---|---|
{table}
"""
