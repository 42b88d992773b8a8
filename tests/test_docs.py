"""The docs say what the code does: pages made from it are fresh, what they name is there, what they show is valid."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from configs import models

from compass_ray.cli import app
from compass_ray.config import RunConfig
from compass_ray.configbase import Config
from compass_ray.ingest.config import FilesConfig, SourceConfig
from compass_ray.pipelines.train_encoder import EncoderRecipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
RESULTS = sorted((ROOT / "benchmarks").rglob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]+)?\)")
FILE = re.compile(r"`((?:docs|benchmarks|jobs|cluster_configs|tests|compass_ray|findings)/[\w./-]+)`")


@cache
def made_by() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["commands", "config"])
def test_pages_that_are_made_from_the_code_are_what_it_says(page: str) -> None:
    assert TEXT[f"{page}.md"] == getattr(made_by(), page)(), "run: python docs/generate.py"


def test_every_field_of_a_config_says_what_it_is() -> None:
    silent = [line for line in TEXT["config.md"].splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert not silent


@pytest.mark.parametrize("page", [*PAGES, *RESULTS], ids=lambda page: page.name)
def test_links_and_files_that_pages_name_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    linked = [page.parent / found[0] for found in LINK.findall(text) if found[0] and "://" not in found[0]]
    named = [ROOT / found for found in FILE.findall(text)]
    assert not [str(path) for path in (*linked, *named) if not path.exists()]


@pytest.mark.parametrize("page", [*PAGES, *RESULTS], ids=lambda page: page.name)
def test_lines_are_short_outside_of_tables_and_blocks(page: Path) -> None:
    lines = FENCE.sub("", page.read_text(encoding="utf-8")).splitlines()
    assert not [line for line in lines if len(line) > 100 and not line.lstrip().startswith("|")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_functions_and_classes_that_pages_name_are_there(page: Path) -> None:
    for file, name in re.findall(r"`([\w/]+\.py): (\w+)`", page.read_text(encoding="utf-8")):
        code = (ROOT / "compass_ray" / file).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(?:def|class) {name}\b", code, re.MULTILINE), f"{file}: {name}"


def test_every_page_has_one_title() -> None:
    outside = {page.name: FENCE.sub("", page.read_text(encoding="utf-8")) for page in [*PAGES, *RESULTS]}
    titles = {name: re.findall(r"^# .+", text, re.MULTILINE) for name, text in outside.items()}
    assert not {name: found for name, found in titles.items() if len(found) != 1}


# --- YAML ---------------------------------------------------------------------------------------


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    for name, text in TEXT.items():
        for language, body in FENCE.findall(text):
            if language in languages:
                yield name, body


def fits(model: type[Config], given: Mapping[str, Any]) -> bool:
    """Whether a mapping holds fields of a model alone, all the way down."""
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    return given.keys() <= fields.keys() and all(_value_fits(fields[name], value) for name, value in given.items())


def _value_fits(info: Any, value: Any) -> bool:
    inner = made_by().models(info.annotation)
    if not inner or not isinstance(value, Mapping):
        return True
    values = value.values() if made_by().step(info) else [value]
    return all(any(fits(one, some) for one in inner) for some in values if isinstance(some, Mapping))


@pytest.mark.parametrize(("name", "body"), [*blocks("yaml")])
def test_yaml_that_is_shown_has_fields_that_there_are(name: str, body: str) -> None:
    given = yaml.safe_load(body)
    known = models(RunConfig) | models(EncoderRecipe)
    named = all(isinstance(value, Mapping) and fits(SourceConfig, value) for value in given.values())
    assert named or any(fits(model, given) for model in known), f"{name}: {sorted(given)}"


def test_a_field_that_is_not_there_is_noticed() -> None:
    assert fits(RunConfig, {"sample": {"budget": 3}, "sources": {"any": {"columns": {"text": "t"}}}})
    assert not fits(RunConfig, {"sample": {"bugdet": 3}})
    assert not fits(RunConfig, {"sources": {"any": {"columns": {"txt": "t"}}}})
    assert issubclass(SourceConfig, FilesConfig)


# --- commands -----------------------------------------------------------------------------------


def shown_commands() -> Iterator[tuple[str, list[str]]]:
    """Every ``compass-ray ...`` in a block, as words, without what a shell would do with it."""
    for name, body in blocks("sh", ""):
        for line in body.replace("\\\n", " ").splitlines():
            told = re.split(r"(?:^|\s)#", line)[0]
            if found := re.search(r"(?:^|\s|/)compass-ray (.+)", told):
                yield name, shlex.split(re.split(r"\s[|>]|;|&&", found[1])[0])


def test_commands_that_are_shown_exist_with_their_options() -> None:
    shown = list(shown_commands())
    assert len(shown) > 10
    for name, words in shown:
        command: Any = typer.main.get_command(app)
        rest = list(words)
        while hasattr(command, "commands"):
            assert rest and rest[0] in command.commands, f"{name}: compass-ray {' '.join(words)}"
            command = command.commands[rest.pop(0)]
        known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
        unknown = {word.partition("=")[0] for word in rest if word.startswith("--")} - known - {"--help"}
        assert not unknown, f"{name}: compass-ray {' '.join(words)}"


def test_every_command_is_told_of_in_a_page_that_people_wrote() -> None:
    written = "\n".join(text for name, text in TEXT.items() if name not in ("commands.md", "config.md"))
    plain = re.sub(r"[`|]", " ", written)
    commands = [" ".join(words) for words, _ in made_by().walk(typer.main.get_command(app), [])]
    assert not [name for name in commands if name not in plain]


def test_every_strategy_and_format_is_told_of_in_a_page_that_people_wrote() -> None:
    from compass_ray.ingest.formats import FORMATS
    from compass_ray.sample.traits import TRAITS

    written = "\n".join(text for name, text in TEXT.items() if name not in ("commands.md", "config.md"))
    assert not [value for value in (*TRAITS, *FORMATS) if f"`{value}`" not in written]
