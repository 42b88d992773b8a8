"""The chat template of a base: what it is told of the date, and which files it travels in."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.tokenizer import TokenizerSource, asks_for_date, at_date, load_tokenizer, template_files
from compass_ray.errors import ConfigError

DAY = date(2025, 1, 1)
GUARDED = (
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- endif %}Today is {{ date_string }}."
)


def rendered(template: str) -> str:
    environment = ImmutableSandboxedEnvironment()
    environment.globals["strftime_now"] = lambda _: "the day of the test"
    return environment.from_string(template).render(messages=[])


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (GUARDED, "Today is 01 Jan 2025."),
        ('{{ strftime_now("%Y-%m-%d") }}', "2025-01-01"),
        ("{{ strftime_now( '%A, den %d. %B' ) }}!", "Wednesday, den 01. January!"),
        ("{{ strftime_now('%Y年%m月%d日') }}", "2025年01月01日"),
        ("{% if strftime_now is not defined %}no clock{% endif %}.", "."),
        ("no date at all", "no date at all"),
    ],
)
def test_a_template_that_asks_for_the_date_is_told_the_one_of_the_config(template: str, expected: str) -> None:
    assert rendered(at_date(template, DAY)) == expected


@pytest.mark.parametrize("call", ["strftime_now(form)", "strftime_now('%d' + '%m')", "now(strftime_now)"])
def test_a_clock_that_cannot_be_stopped_is_refused(call: str) -> None:
    with pytest.raises(ConfigError, match=r"^adapt\.chat_template: the template uses the clock \(strftime_now\)"):
        at_date(f"{{{{ {call} }}}}", DAY)


def source(base: Path, template: str | None = None, **fields: object) -> TokenizerSource:
    return TokenizerSource(AdaptConfig(base=str(base), **fields), template)  # type: ignore[arg-type]


def test_the_date_is_in_the_tokens_and_in_the_fingerprint_and_the_template_travels_with_its_clock(
    tiny_base: Path,
) -> None:
    dated = "{{ strftime_now('%Y') }}" + "{% for m in messages %}{{ m.content }}{% endfor %}"
    one = source(tiny_base, dated)
    assert asks_for_date(one.open()[1])
    assert one.load().apply_chat_template([{"role": "user", "content": "!"}], tokenize=False) == "2025!"
    later = source(tiny_base, dated, template_date="2026-11-28")
    assert later.load().apply_chat_template([{"role": "user", "content": "!"}], tokenize=False) == "2026!"
    assert later.fingerprint() != one.fingerprint()
    assert template_files(one.open()[1]) == {"chat_template.jinja": dated.encode()}
    assert not asks_for_date(source(tiny_base).open()[1])


def test_named_templates_travel_under_their_names_and_are_in_the_fingerprint(tiny_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "named"))
    before = source(base).fingerprint()
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool_use.jinja").write_text("with tools")
    named = source(base)
    assert template_files(named.open()[1]) == {
        "additional_chat_templates/tool_use.jinja": b"with tools",
        "chat_template.jinja": (tiny_base / "chat_template.jinja").read_bytes(),
    }
    assert named.fingerprint() != before
    (base / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match=r"chat templates named tool_use, and none is the default"):
        load_tokenizer(base)


def test_a_base_without_a_template_has_no_files_of_one(tiny_base: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny_base, tmp_path / "plain"))
    (base / "chat_template.jinja").unlink()
    assert template_files(source(base).open()[1]) == {}
