"""Names become paths only when they cannot lead anywhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.errors import RegistryError
from compass_ray.models import BaseRef, is_chat_template
from compass_ray.registry.names import (
    AdapterRef,
    check_base_key,
    check_file,
    check_lang,
    check_version,
    is_version_path,
)

TRAVERSING = [
    "..",
    "../x",
    "a/../b",
    "/etc",
    "a/b",
    ".",
    "",
    ".hidden",
    "a\\b",
    "a\x00b",
    "sw\n",
    "s3://b/k",
    "~",
    "a b",
]


@pytest.mark.parametrize("name", TRAVERSING)
def test_names_that_lead_elsewhere_are_refused_by_every_check(name: str) -> None:
    for check in (check_base_key, check_lang, check_version, check_file):
        with pytest.raises(RegistryError, match=r"expected "):
            check(name)
    assert not is_version_path(name, "sw", "0123abcd")
    assert not is_version_path("tiny-0123abcd", name, "0123abcd")
    assert not is_version_path("tiny-0123abcd", "sw", name)


@pytest.mark.parametrize("name", ["reference/../x", "reference/", "reference//x", "reference/.x", "Reference/x", "x"])
def test_reference_files_stay_in_their_folder(name: str) -> None:
    with pytest.raises(RegistryError, match=r"or reference/<name> of"):
        check_file(name)


@pytest.mark.parametrize("name", ["chat_template.jinja", "additional_chat_templates/tool_use.jinja"])
def test_chat_templates_are_files_of_a_version(name: str) -> None:
    assert check_file(name) == name
    assert is_chat_template(name)


@pytest.mark.parametrize(
    "name", ["chat_template.py", "additional_chat_templates/../x.jinja", "additional_chat_templates/a/b.jinja"]
)
def test_what_is_only_like_a_chat_template_is_none(name: str) -> None:
    assert not is_chat_template(name)
    with pytest.raises(RegistryError, match=r"expected chat_template\.jinja"):
        check_file(name)


def test_reference_files_may_lie_in_folders() -> None:
    assert check_file("reference/replay/part-0.parquet") == "reference/replay/part-0.parquet"


@given(st.text(min_size=1, max_size=120), st.text("0123456789abcdef", min_size=32, max_size=32))
def test_the_key_of_any_base_model_is_a_name(name: str, weights_hash: str) -> None:
    key = BaseRef(name, None, weights_hash).key
    assert check_base_key(key) == key


@pytest.mark.parametrize(("lang", "canonical"), [("swa", "sw"), ("zho_Hans", "zh"), ("pt-BR", "pt"), ("SW", "sw")])
def test_other_notations_of_a_language_are_refused_with_the_canonical_one(lang: str, canonical: str) -> None:
    with pytest.raises(RegistryError, match=rf"language '{lang}': .* its canonical tag is '{canonical}'"):
        check_lang(lang)


@pytest.mark.parametrize("version", ["0123abc", "0123ABCD", "g" * 8, "0" * 41, "0123abcd.json"])
def test_versions_are_8_to_40_lowercase_hex_digits(version: str) -> None:
    with pytest.raises(RegistryError, match="8 to 40 lowercase hex digits"):
        check_version(version)


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("sw", AdapterRef(None, "sw", "champion")),
        ("zh-Hant@previous", AdapterRef(None, "zh-Hant", "previous")),
        ("tiny-0123abcd/sw@0123ab", AdapterRef("tiny-0123abcd", "sw", "0123ab")),
    ],
)
def test_references_are_read_and_written(text: str, ref: AdapterRef) -> None:
    assert AdapterRef.parse(text) == ref
    assert AdapterRef.parse(str(ref)) == ref


@pytest.mark.parametrize(
    "text", ["", "@champion", "sw@", "sw@best", "sw@0123a", "/sw", "tiny/sw", "sw@../..", "../sw", "sw@champion@x"]
)
def test_what_is_not_a_reference_is_refused_with_the_form(text: str) -> None:
    with pytest.raises(RegistryError, match=r"the form is \[BASE/\]LANG\[@REF\]"):
        AdapterRef.parse(text)
