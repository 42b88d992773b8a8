"""How much of a document is shown."""

from __future__ import annotations

import pytest

from compass_ray.text import shorten, without_controls


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


def test_what_controls_a_terminal_or_turns_text_around_becomes_a_space() -> None:
    assert without_controls("a\x1b[2Jb\x9bc\x00d\u202ee\u2066f\u2069") == "a [2Jb c d e f "
    words = "m\u200cn \u200fש 👩\u200d👧"  # joiners and marks are part of words
    assert without_controls(words) == words
