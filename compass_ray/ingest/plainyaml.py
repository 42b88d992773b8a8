"""YAML of foreign files: plain values, words as text, and no aliases, by which a few lines can stand for gigabytes."""

from __future__ import annotations

from typing import Any

import yaml

from compass_ray import yamlwords


class _PlainLoader(yamlwords.Loader):
    """Safe YAML without aliases."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


def load_plain_yaml(text: str) -> Any:
    """Parse YAML. Cost: some microseconds a character, so callers bound the length.

    Raises
    ------
    ValueError
        If it is not plain YAML; the message is the parser's.
    """
    try:
        return yamlwords.as_typed(yaml.load(text, _PlainLoader))  # noqa: S506 a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ValueError(str(exc)) from exc
