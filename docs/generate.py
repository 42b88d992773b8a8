"""Write the pages that are made from the code: ``commands.md`` and ``config.md``.

    python docs/generate.py

``tests/test_docs.py`` fails where they are not what the code says.
"""

from __future__ import annotations

import json
import re
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer

from compass_ray import errors
from compass_ray.cli import app
from compass_ray.config import RunConfig
from compass_ray.configbase import Config, OneOf
from compass_ray.ingest.config import FilesConfig

FOLDER = Path(__file__).parent
_MADE = "<!-- Made by docs/generate.py from the code; do not edit. -->\n"


def commands() -> str:
    """List all commands with their arguments and options, and all exit codes."""
    lines = [_MADE, "# Commands\n"]
    for words, command in walk(typer.main.get_command(app), []):
        lines += [f"## {' '.join(words)}\n", *textwrap.wrap(_sentence(command.help), 100), ""]
        rows = [
            f"| `{_spelling(param)}` | {_sentence(param.help)} |" for param in command.params if param.name != "help"
        ]
        lines += [*_table("argument or option", "what"), *rows, ""] if rows else []
    lines += ["## Exit codes\n", "0 is done.\n", *_table("code", "error", "what"), *_exit_codes(), ""]
    return "\n".join(lines)


def config() -> str:
    """List all fields of a config by section, with defaults."""
    lines = [
        _MADE,
        "# Config\n",
        "A field without a default must be given. `compass-ray config show FILE` prints a config",
    ]
    lines += ["with all defaults, `compass-ray config schema` the JSON schema with all ranges.\n"]
    sections = {name: info for name, info in RunConfig.model_fields.items() if models(info.annotation)}
    lines += _table("field", "default", "what")
    lines += [_field(name, info) for name, info in RunConfig.model_fields.items() if name not in sections]
    for name, info in sections.items():
        said = [f"{_sentence(info.description)}\n"] if info.description else []
        lines += [f"\n## {name}\n", *said, *_table("field", "default", "what")]
        prefix = f"{name}.{step(info)}"
        lines += [row for model in models(info.annotation) for row in _rows(model, prefix)]
    return "\n".join([*lines, ""])


def walk(command: Any, words: list[str]) -> Iterator[tuple[list[str], Any]]:
    """Yield a command, or all commands below a group, each with the words that call it.

    Parameters
    ----------
    command : click.Command or click.Group
    words : list of str
        Those that call it, without the program's name.
    """
    if not hasattr(command, "commands"):
        yield ["compass-ray", *words], command
        return
    for name, inner in command.commands.items():
        yield from walk(inner, [*words, name])


def _spelling(param: Any) -> str:
    if param.param_type_name == "argument":
        return str(param.metavar or param.name.upper())
    return ", ".join([*param.opts, *param.secondary_opts])


def _exit_codes() -> Iterator[str]:
    """Yield what the drawing of the tree says of each error.

    Of one that it says nothing of, it is what its parent is.
    """
    told = dict(re.findall(r"^\W+(\w+)(?: \(\w+\))? +(?:\d+)? *(.*)$", errors.__doc__ or "", re.MULTILINE))
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, errors.CompassError) and kind is not errors.CompassError:
            yield f"| {kind.exit_code} | `{name}` | {_sentence(told[name])} |"
    yield f"| {errors.DRIFT_EXIT_CODE} | | usage has drifted (`monitor --exit-code`) |"
    yield f"| {errors.UNKNOWN_EXIT_CODE} | | a language has no reference usage (`monitor --exit-code`) |"


def _rows(model: type[Config], prefix: str) -> Iterator[str]:
    """Yield the fields of a model and of those inside it. Those of files come once, where they come first."""
    for name, info in model.model_fields.items():
        label = prefix + (info.alias or name)
        inner = models(info.annotation)
        if not inner or info.description:
            yield _field(label, info)
        for one in inner:
            if issubclass(one, FilesConfig):
                yield f"| `{label}.NAME` | | What a source has of files, columns and rows: see sources |"
            else:
                yield from _rows(one, f"{label}.{step(info)}")


def step(info: Any) -> str:
    """Write what stands in a dotted name between a field and those inside it: a name of the user's, or nothing."""
    return "NAME." if get_origin(info.annotation) is dict else ""


def _field(name: str, info: Any) -> str:
    allowed = _allowed(info)
    what = ". ".join(part for part in (_sentence(info.description), allowed) if part)
    return f"| `{name}` | {_default(info)} | {what} |"


def _default(info: Any) -> str:
    if info.is_required():
        return ""
    value = info.get_default(call_default_factory=True)
    if isinstance(value, Config):
        return "as below"
    return (
        "none"
        if value is None or value in ([], {})
        else f"`{value if isinstance(value, str) else json.dumps(value, default=str)}`"
    )


def _allowed(info: Any) -> str:
    values = [value for part in _parts(info.annotation) if get_origin(part) is Literal for value in get_args(part)]
    for part in info.metadata:
        values += part.names if isinstance(part, OneOf) else []
    return f"One of {', '.join(f'`{value}`' for value in values)}" if values else ""


def models(annotation: Any) -> list[type[Config]]:
    """List the models of a config that a type is made of."""
    return [part for part in _parts(annotation) if isinstance(part, type) and issubclass(part, Config)]


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield a type and all that it is made of."""
    yield annotation
    if get_origin(annotation) is not Literal and not isinstance(annotation, types.NoneType):
        for part in get_args(annotation):
            if isinstance(part, type) or get_origin(part) is not None:
                yield from _parts(part)


def _table(*names: str) -> list[str]:
    return [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]


def _sentence(text: str | None) -> str:
    plain = " ".join((text or "").split()).replace("|", "\\|")
    return plain if plain.endswith("..") else plain.removesuffix(".")


if __name__ == "__main__":
    for page in (commands, config):
        (FOLDER / f"{page.__name__}.md").write_text(page(), encoding="utf-8")
