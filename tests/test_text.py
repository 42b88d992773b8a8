"""How much of a document is shown."""

from __future__ import annotations

import pytest

from compass_ray.text import shorten


@pytest.mark.parametrize(
    ("text", "characters", "expected"),
    [
        ("short  and\nwhole", 20, "short and whole"),
        ("cut between two words", 15, "cut between…"),
        ("天気予報を教えてください", 6, "天気予報を…"),
        ("பயிர்கள்", 5, "பயி…"),  # a vowel sign stays with its consonant
    ],
)
def test_a_long_text_is_cut_between_words_or_graphemes(text: str, characters: int, expected: str) -> None:
    assert shorten(text, characters) == expected
    assert len(shorten(text, characters)) <= characters
