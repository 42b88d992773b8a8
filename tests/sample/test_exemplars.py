"""Whose words name a cluster."""

from __future__ import annotations

import pyarrow as pa
import pytest

from compass_ray.sample.exemplars import name_clusters

SWAHILI = ["Mahindi yanahitaji mvua", "Bei ya mahindi sokoni", "Mbegu za mahindi bora"]
ENGLISH = ["Rice prices rise again", "Rice fields need water", "Cooking rice slowly"]
AMHARIC = ["ስለ ቡና ዋጋ", "ቡና እንዴት ይፈላል", "የቡና ተክል", "ቡና ጥሩ ነው"]


def documents(*rows: tuple[int, str, str]) -> pa.Table:
    """Cluster, language and text; usage of that language, the first nearest to its centroid."""
    return pa.table(
        {
            "cluster": [row[0] for row in rows],
            "lang": [row[1] for row in rows],
            "target_lang": [row[1] for row in rows],
            "role": ["usage"] * len(rows),
            "similarity": [1 - number / 100 for number in range(len(rows))],
            "text": [row[2] for row in rows],
        }
    )


def in_cluster(cluster: int, lang: str, texts: list[str]) -> list[tuple[int, str, str]]:
    return [(cluster, lang, text) for text in texts]


def test_the_target_languages_words_name_a_cluster_that_has_enough_of_them() -> None:
    rows = [*in_cluster(0, "am", AMHARIC), *in_cluster(0, "en", ENGLISH), *in_cluster(0, "sw", SWAHILI)]
    name = name_clusters(documents(*rows), ["sw"], 1)["sw", 0]
    assert name.label == "mahindi"
    assert name.exemplar == SWAHILI[0]


def test_english_names_it_where_the_target_language_has_too_few_and_english_enough() -> None:
    rows = [*in_cluster(0, "am", AMHARIC), *in_cluster(0, "en", ENGLISH), *in_cluster(0, "sw", SWAHILI[:1])]
    assert name_clusters(documents(*rows), ["sw"], 1)["sw", 0].label == "rice"


@pytest.mark.parametrize("known", ["sw", "en"])
def test_a_single_document_the_reader_knows_comes_before_many_in_a_language_that_may_be_foreign(known: str) -> None:
    text = {"sw": SWAHILI[0], "en": ENGLISH[0]}[known]
    rows = [*in_cluster(0, "am", AMHARIC), *in_cluster(0, known, [text])]
    label = name_clusters(documents(*rows), ["sw"], 1)["sw", 0].label
    assert label
    assert all(term in text.lower() for term in label.split(" · "))


def test_without_either_the_largest_language_names_it_and_an_empty_cluster_has_its_number() -> None:
    names = name_clusters(documents(*in_cluster(0, "am", AMHARIC)), ["sw"], 2)
    assert "ቡና" in names["sw", 0].label
    assert (names["sw", 1].label, names["sw", 1].exemplar) == ("cluster 1", None)
