"""One config file: all errors at once, variables, overrides, identity and execution."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from configs import GOOD, good
from pydantic import BaseModel, ValidationError

from compass_ray.cluster.config import ClusterConfig
from compass_ray.config import RunConfig, check_elsewhere, load_config
from compass_ray.embed.config import EmbedConfig
from compass_ray.errors import ConfigError
from compass_ray.ingest.config import IngestConfig


def message(raw: Any, overrides: tuple[str, ...] = ()) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(raw, overrides)
    return str(caught.value)


def test_a_minimal_config_has_defaults_that_work() -> None:
    config = load_config(GOOD)
    assert (config.name, config.seed) == ("default", 0)
    assert (config.cluster.n_clusters, config.sample.strategy, config.holdout_fraction) == (100, "kl", 0.3)
    assert config.sources["asked"].lang == "sw"


def test_all_errors_come_in_one_go_with_field_value_and_range() -> None:
    raw = good(
        seed=-1,
        cluster={"n_clusters": 1, "outlier_quantile": 0.3},
        holdout_fraction=1.5,
        embed={"dtype": "int8"},
        sample={"budget": 0},
    )
    text = message(raw)
    lines = text.splitlines()
    assert lines[0] == "config: 6 problem(s)"
    assert sorted(lines[1:]) == [
        "  cluster.n_clusters: Input should be greater than or equal to 2; found 1",
        "  cluster.outlier_quantile: Input should be greater than 0.5; found 0.3",
        "  embed.dtype: Input should be 'float32', 'float16' or 'bfloat16'; found 'int8'",
        "  holdout_fraction: Input should be less than 1; found 1.5",
        "  sample.budget: Input should be greater than or equal to 1; found 0",
        "  seed: Input should be greater than or equal to 0; found -1",
    ]


def test_errors_inside_a_source_name_the_source() -> None:
    raw = good()
    raw["sources"]["web"]["role"] = "puddle"
    raw["sources"]["asked"]["lang"] = "englisch"
    text = message(raw)
    assert "  sources.web.role: Input should be 'pool', 'current' or 'usage'; found 'puddle'" in text
    assert "  sources.asked.lang: Value error, 'englisch' is no known language" in text


def test_missing_fields_are_named() -> None:
    assert message({"sample": {"budget": 1}, "adapt": {}}).splitlines()[1:] == [
        "  output: Field required",
        "  adapt.base: Field required",
    ]


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (good(bugdet=5), "  bugdet: Extra inputs are not permitted; found 5"),
        (good(cluster={"clusters": 8}), "  cluster.clusters: Extra inputs are not permitted; found 8"),
        (good(ray={"cpus": 8}), "  ray.cpus: Extra inputs are not permitted; found 8"),
        (
            good(sources={**GOOD["sources"], "x": {"role": "pool", "path": "a", "lang": "en", "glob": "b"}}),
            "  sources.x.glob: Extra inputs are not permitted; found 'b'",
        ),
    ],
)
def test_unknown_fields_are_refused_at_every_depth(raw: dict[str, Any], line: str) -> None:
    assert message(raw) == f"config: 1 problem(s)\n{line}"


@pytest.mark.parametrize(
    ("role", "missing"), [("pool", "usage"), ("usage", "pool")], ids=["without target", "without pool"]
)
def test_a_run_needs_a_pool_and_a_target(role: str, missing: str) -> None:
    raw = good(sources={"one": {"role": role, "path": "a.jsonl", "lang": "en"}})
    assert f"sources: no source has role {missing}; curate needs a pool and usage" in message(raw)


@pytest.mark.parametrize(
    ("sample", "good_one"),
    [({}, False), ({"strategy": "all"}, True), ({"strategy": "all", "budget": 5}, False), ({"budget": 5}, True)],
)
def test_a_budget_belongs_to_every_strategy_but_all(sample: dict[str, Any], good_one: bool) -> None:
    if good_one:
        assert load_config(good(sample=sample)).sample.model_dump(exclude_unset=True) == sample
    else:
        expected = "one of budget and budget_tokens is needed by every strategy but 'all', which takes none"
        assert expected in message(good(sample=sample))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"lang": None}, "name exactly one of columns.lang, lang or lang_pattern; found none"),
        ({"lang_pattern": "(?P<lang>..)"}, r"found ['lang', 'lang_pattern']"),
        ({"lang": None, "lang_pattern": "[a-z"}, "not a regular expression: unterminated character set"),
        ({"lang": None, "lang_pattern": "([a-z]+)"}, "needs a group named lang"),
        ({"columns": {"text": "t", "messages": "m"}}, "name exactly one of text, prompt or messages"),
        ({"columns": {"completion": "c"}}, "found none"),
        ({"columns": {"text": "t", "completion": "c"}}, "completion needs prompt beside it"),
        ({"target_lang": "sw"}, "pool rows belong to no target language; remove 'target_lang'"),
    ],
)
def test_contradictions_in_a_source_are_explained(source: dict[str, Any], expected: str) -> None:
    raw = good()
    raw["sources"]["web"] = {"role": "pool", "path": "a.jsonl", "lang": "en", **source}
    text = message(raw)
    assert "sources.web" in text
    assert expected in text


def test_a_bad_name_shows_the_pattern_it_must_match() -> None:
    text = message(good(name="../escape"))
    assert "name: String should match pattern" in text
    assert "found '../escape'" in text


def test_variables_are_expanded_in_nested_values_and_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUCKET", "s3://b")
    monkeypatch.setenv("BUDGET", "250")
    raw = good(output="${BUCKET}/out", sample={"budget": "${BUDGET}"})
    raw["sources"]["web"]["path"] = ["${BUCKET}/a.jsonl", "${BUCKET}/x/${BUDGET}.jsonl"]
    config = load_config(raw)
    assert config.output == "s3://b/out"
    assert config.sample.budget == 250
    assert config.sources["web"].paths == ["s3://b/a.jsonl", "s3://b/x/250.jsonl"]


@pytest.mark.parametrize(
    ("value", "written", "expected"),
    [
        (None, "${WHERE:-local}/out", "local/out"),
        ("", "${WHERE:-local}/out", "local/out"),  # as in a shell
        ("far", "${WHERE:-local}/out", "far/out"),
        (None, "${WHERE:-}out", "out"),
        ("${OTHER}", "${WHERE}", "${OTHER}"),  # values are not expanded again
        ("far", "$WHERE/out", "$WHERE/out"),
        (None, "${WHERE:-a:-b}", "a:-b"),
    ],
)
def test_a_variable_has_its_default_where_it_is_unset_or_empty(
    monkeypatch: pytest.MonkeyPatch, value: str | None, written: str, expected: str
) -> None:
    if value is None:
        monkeypatch.delenv("WHERE", raising=False)
    else:
        monkeypatch.setenv("WHERE", value)
    assert load_config(good(output=written)).output == expected


def test_all_unset_variables_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOT_SET_B", "NOT_SET_A"):
        monkeypatch.delenv(name, raising=False)
    raw = good(output="${NOT_SET_B}/${NOT_SET_A}", seed="${NOT_SET_B}")
    assert message(raw) == "config: environment variables not set: NOT_SET_A, NOT_SET_B"


def test_the_unexpanded_config_keeps_variables_and_has_the_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_BUCKET", "s3://hidden")
    config = load_config(good(output="${SECRET_BUCKET}/out"), ["seed=4"])
    assert config.output == "s3://hidden/out"
    assert config.unexpanded["output"] == "${SECRET_BUCKET}/out"
    assert config.unexpanded["seed"] == 4
    assert "hidden" not in str(config.unexpanded)


def test_overrides_apply_in_order_read_yaml_and_make_sections() -> None:
    config = load_config(
        GOOD,
        [
            "sample.budget=7",
            "sample.budget=9",
            "cluster.n_clusters=12",
            "sources.web.path=[a.jsonl, b.jsonl]",
            "sources.web.where={kind: [x, y]}",
            "embed.prompt='query: '",
            "ray.address=null",
        ],
    )
    assert (config.sample.budget, config.cluster.n_clusters) == (9, 12)
    assert config.sources["web"].paths == ["a.jsonl", "b.jsonl"]
    assert config.sources["web"].where == {"kind": ["x", "y"]}
    assert (config.embed.prompt, config.ray.address) == ("query: ", None)


def test_an_override_may_hold_an_equals_sign_and_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "far")
    assert load_config(GOOD, ["output=${WHERE}/a=b"]).output == "far/a=b"


def test_overrides_do_not_change_the_mapping_they_are_given() -> None:
    raw = good()
    load_config(raw, ["sample.budget=7", "sources.web.path=other", "cluster.n_clusters=9"])
    assert raw == GOOD


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sample.budget", "--set sample.budget: expected field.path=value"),
        ("=5", "--set =5: expected field.path=value"),
        ("output.x=5", "--set output.x=5: output holds 'out', not a section"),
        ("seed=[1", "--set seed=[1: the value is not YAML"),
        ("sample.bugdet=5", "sample.bugdet: Extra inputs are not permitted; found 5"),
        ("sample.budget=lots", "sample.budget: Input should be a valid integer, unable to parse string as an integer"),
    ],
)
def test_bad_overrides_say_what_is_wrong(override: str, expected: str) -> None:
    assert expected in message(GOOD, (override,))


def write(folder: Path, text: str, name: str = "spring-run.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


YAML = """
output: out
sources:
  web: {role: pool, path: a.jsonl, lang: en}
  asked: {role: usage, path: b.jsonl, columns: {prompt: frage, completion: antwort}, target_lang: zh_TW, lang: "no"}
sample: {budget: 5}
"""


def test_a_file_names_its_run_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, YAML)).name == "spring-run"
    assert load_config(write(tmp_path, YAML + "name: own\n")).name == "own"
    assert load_config(write(tmp_path, YAML), ["name=set"]).name == "set"
    assert load_config(write(tmp_path, YAML), name="given").name == "given"


def test_languages_in_a_file_become_canonical(tmp_path: Path) -> None:
    asked = load_config(Path(write(tmp_path, YAML))).sources["asked"]
    assert (asked.target_lang, asked.lang) == ("zh-Hant", "no")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n- b\n", "expected a mapping of sections, found list"),
        ("", "expected a mapping of sections, found NoneType"),
        ("a: [1\n", "not YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "not YAML: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_config_is_a_config_error_naming_the_file(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)
    found = message(path)
    assert found.startswith(path)
    assert expected in found


def test_a_file_that_is_not_utf8_is_a_config_error(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"output: caf\xe9\xff\n")
    assert "not YAML" in message(str(path))


def test_an_absent_file_and_a_folder_are_config_errors(tmp_path: Path) -> None:
    assert message(str(tmp_path / "none.yaml")) == f"{tmp_path / 'none.yaml'}: no such config file"
    assert message(str(tmp_path)) == f"{tmp_path}: no such config file"


def test_inline_json_is_a_config() -> None:
    text = json.dumps(good(seed=5))
    config = load_config(f"  {text}", ["sample.budget=7"])
    assert (config.name, config.seed, config.sample.budget) == ("default", 5, 7)
    assert message(text.replace('"seed": 5', '"seed": -1')).startswith("config: 1 problem(s)\n  seed: ")
    assert message('{"output": ').startswith("config: not YAML: ")


def test_a_config_for_elsewhere_may_hold_variables_that_are_not_set_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    raw = good(output="${NOT_SET}/out", seed="${NOT_SET}", name="${NOT_SET}", embed={"dtype": "${NOT_SET}"})
    raw["sources"]["web"]["lang"] = "${NOT_SET}"
    assert check_elsewhere(raw, ["sample.budget=7"]) == {**raw, "sample": {"budget": 7}}


def test_a_config_for_elsewhere_is_refused_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    monkeypatch.setenv("SET", "none")
    raw = good(output="${NOT_SET}/out", seed="${SET}", sample={"budget": 0, "strategy": "${NOT_SET}"}, clutser={})
    with pytest.raises(ConfigError) as caught:
        check_elsewhere(raw)
    fields = [line.partition(":")[0] for line in str(caught.value).splitlines()]
    assert sorted(fields) == ["  clutser", "  sample.budget", "  seed", "config"]


def test_configs_are_frozen() -> None:
    config = load_config(GOOD)
    with pytest.raises(ValidationError, match="Instance is frozen"):
        config.seed = 3  # type: ignore[misc]


def test_a_shown_config_loads_as_the_same_config() -> None:
    config = load_config(good(embed={"prompt": "query: "}))
    again = load_config(config.model_dump(mode="json"))
    assert again.model_dump() == config.model_dump()


def test_every_field_says_what_it_is_or_is_a_section() -> None:
    undescribed = [
        f"{model.__name__}.{name}"
        for model in (RunConfig, ClusterConfig, EmbedConfig, IngestConfig)
        for name, info in model.model_fields.items()
        if not info.description and not (isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel))
    ]
    assert undescribed == []
