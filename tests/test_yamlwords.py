"""What YAML takes for something else than it looks like, in configs and in front matter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray import yamlwords
from compass_ray.config import load_config
from compass_ray.errors import ConfigError

CONFIG = """
output: out
sources:
  web: {{role: pool, path: a.jsonl, lang: en, {web}}}
  asked: {{role: usage, path: b.jsonl, {asked}}}
sample: {{budget: 5, {sample}}}
"""


def config(tmp_path: Path, web: str = "", asked: str = "lang: sw", sample: str = "") -> str:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.format(web=web, asked=asked, sample=sample))
    return str(path)


def problems(path: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


NO = "no, which YAML reads as false: write 'no' in quotes if it is text"


# --- text that was not quoted -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"asked": "lang: no"}, f"sources.asked.lang: Input should be a valid string; found {NO}"),
        (
            {"asked": "lang: sw, target_lang: no"},
            f"sources.asked.target_lang: Input should be a valid string; found {NO}",
        ),
        (
            {"asked": "lang: Off"},
            "sources.asked.lang: Input should be a valid string; found Off, which YAML reads as false: write 'Off' in "
            "quotes if it is text",
        ),
        (
            {"asked": "lang: 12:30"},
            "sources.asked.lang: Input should be a valid string; found 12:30, which YAML reads as the number 750: "
            "write '12:30' in quotes if it is text",
        ),
        (
            {"asked": "lang: 1e3"},
            "sources.asked.lang: Value error, '1e3' is no known language; expected a BCP-47, ISO 639, FLORES or "
            "Wikipedia code or an English name; found '1e3'",
        ),
        (
            {"asked": "lang: 639"},
            "sources.asked.lang: Input should be a valid string; found 639; text is written in quotes",
        ),
        (
            {"asked": "columns: {lang: code, text: text}, lang_map: {x: no}"},
            f"sources.asked.lang_map.x: Input should be a valid string; found {NO}",
        ),
        (
            {"asked": "columns: {lang: code, text: text}, lang_map: {no: nb}"},
            f"sources.asked.lang_map: the key {NO}",
        ),
        ({"sample": "max_language_fraction: {no: 0.5}"}, f"sample.max_language_fraction: the key {NO}"),
        ({"web": "where: {lang: no}"}, f"sources.web.where.lang: found {NO}"),
        ({"web": "where: {lang: [sw, no]}"}, f"sources.web.where.lang.1: found {NO}"),
        ({"web": "where: {no: 1}"}, f"sources.web.where: the key {NO}"),
        (
            {"web": "where: {answer: Yes}"},
            "sources.web.where.answer: found Yes, which YAML reads as true: write 'Yes' in quotes if it is text",
        ),
        (
            {"web": "where: {zip: 01234}"},
            "sources.web.where.zip: found 01234, which YAML reads as the number 668: write '01234' in quotes if it is "
            "text",
        ),
        (
            {"web": "where: {version: 1.10}"},
            "sources.web.where.version: found 1.10, which YAML reads as the number 1.1: write '1.10' in quotes if it "
            "is text",
        ),
        (
            {"web": "where: {x: }"},
            "sources.web.where.x: found nothing, which YAML reads as null: write '' in quotes if it is text",
        ),
        (
            {"web": "where: {day: 2024-02-29}"},
            "sources.web.where: Value error, day: expected text, a number, true, false or null, found 2024-02-29 (date)"
            "; quote text",
        ),
    ],
)
def test_a_word_that_yaml_does_not_read_as_text_says_how_to_write_it(
    tmp_path: Path, given: dict[str, str], found: str
) -> None:
    assert found in problems(config(tmp_path, **given))


def test_all_words_are_told_at_once(tmp_path: Path) -> None:
    path = config(tmp_path, web="where: {a: 012, no: x}", asked="lang: no")
    assert problems(path) == [
        f"sources.web.where: the key {NO}",
        f"sources.asked.lang: Input should be a valid string; found {NO}",
        "sources.web.where.a: found 012, which YAML reads as the number 10: write '012' in quotes if it is text",
    ]


@pytest.mark.parametrize(("typed", "read"), [("010", 8), ("1:30", 90)])
def test_a_number_to_the_base_of_eight_or_sixty_is_refused_where_a_number_is_wanted(
    tmp_path: Path, typed: str, read: int
) -> None:
    [found] = problems(config(tmp_path), f"sample.budget={typed}")
    assert found.startswith(f"sample.budget: found {typed}, which YAML reads as the number {read}: ")


def test_a_section_that_is_no_text_is_told_too(tmp_path: Path) -> None:
    path = Path(config(tmp_path))
    path.write_text(path.read_text() + "off: {}\n")
    assert problems(str(path)) == [
        "config: the key off, which YAML reads as false: write 'off' in quotes if it is text",
        "off: Extra inputs are not permitted",
    ]


def test_overrides_are_words_too_and_replace_those_of_the_file(tmp_path: Path) -> None:
    path = config(tmp_path, web="where: {lang: no}")
    assert problems(path, "sources.asked.lang=no") == [
        f"sources.asked.lang: Input should be a valid string; found {NO}"
    ]
    assert problems(path, "sources.web.where={x: off}")[0].startswith("sources.web.where.x: found off, ")
    assert load_config(path, ["sources.web.where.lang='no'"]).sources["web"].where == {"lang": ["no"]}


# --- words that mean what they say --------------------------------------------------------------


def test_words_are_fine_where_no_text_is_wanted(tmp_path: Path) -> None:
    path = config(tmp_path, web="min_characters: 1_0, where: {a: [true, False, null, 1, 1.5, x, 'no']}")
    read = load_config(path, ["sample.near_duplicates=off", "ray={address: ~}"])
    assert read.sources["web"].min_characters == 10
    assert read.sources["web"].where == {"a": [True, False, None, 1, 1.5, "x", "no"]}
    assert read.sample is not None
    assert read.sample.near_duplicates == "off"


def test_quoted_text_is_text_whatever_it_says(tmp_path: Path) -> None:
    read = load_config(config(tmp_path, web="where: {'no': ['yes', '010', '', '~', \"12:30\"]}", asked="lang: 'no'"))
    assert read.sources["web"].where == {"no": ["yes", "010", "", "~", "12:30"]}
    assert read.sources["asked"].lang == "no"


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False) | st.text("noyes01:.~", max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("noyes1", min_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(plain)
@settings(deadline=None)
def test_what_yaml_itself_writes_is_read_as_it_was_and_has_no_word_but_a_number(document: Any) -> None:
    content, words = yamlwords.load(yaml.safe_dump(document))
    assert content == document
    assert words.keys == {}
    assert all(isinstance(word.value, float) for word in words.values.values())  # 1.0e+20, which JSON writes 1e+20


def test_front_matter_keeps_words_as_text_and_dates_as_dates() -> None:
    text = "a: no\nb: 12:30\nc: 010\nd: 1.10\ne: 2024\nf: ~\ng: True\nh: [on, 1.5]\nno: x\ni: 2024-02-29"
    found = yamlwords.as_typed(yaml.load(text, yamlwords.Loader))  # noqa: S506 a safe loader
    day = found.pop("i")
    assert found == {
        **{"a": "no", "b": "12:30", "c": "010", "d": "1.10", "e": 2024},
        **{"f": None, "g": True, "h": ["on", 1.5], "no": "x"},
    }
    assert day.isoformat() == "2024-02-29"
