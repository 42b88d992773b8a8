"""The error tree: exit codes, pickling, and a drawing that is true."""

from __future__ import annotations

import pickle
import re

import pytest

from compass_ray import errors
from compass_ray.errors import CompassError


def tree(root: type[CompassError] = CompassError) -> list[type[CompassError]]:
    found = [root]
    for child in root.__subclasses__():
        found += tree(child)
    return [cls for cls in found if cls.__module__ == "compass_ray.errors"]


EXIT_CODES = {
    "CompassError": 1,
    "ConfigError": 2,
    "DataError": 3,
    "SchemaError": 3,
    "TooManyBadRows": 3,
    "NonFiniteEmbedding": 3,
    "EmptyInput": 3,
    "ArtifactError": 1,
    "ArtifactMissing": 1,
    "ArtifactCorrupt": 1,
    "FingerprintMismatch": 2,
    "ClusteringError": 3,
    "TooFewSamples": 3,
    "SamplingError": 3,
    "InfeasibleBudget": 3,
    "AdaptationError": 5,
    "NonFiniteLoss": 5,
    "NothingTrained": 5,
    "IncompatibleAdapter": 5,
    "RegistryError": 1,
    "AliasMoved": 1,
    "GateRefused": 6,
    "ClusterError": 4,
    "ResourcesMissing": 4,
    "WorkerLost": 4,
    "Interrupted": 130,
}


@pytest.mark.parametrize("cls", tree(), ids=lambda cls: cls.__name__)
def test_every_error_survives_pickle(cls: type[CompassError]) -> None:
    error = cls("pool/a.jsonl: expected 3 columns, found 2; add the third — 数据")
    error.add_note("in shard 00003")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 our own bytes
    assert type(copy) is cls
    assert str(copy) == str(error)
    assert copy.args == error.args
    assert copy.exit_code == error.exit_code
    assert copy.__notes__ == ["in shard 00003"]


@pytest.mark.parametrize(("name", "code"), EXIT_CODES.items())
def test_errors_have_the_documented_exit_code(name: str, code: int) -> None:
    assert getattr(errors, name).exit_code == code


def test_no_error_exits_with_the_code_of_success_or_drift() -> None:
    assert not {cls.exit_code for cls in tree()} & {0, 10}


def drawing() -> dict[str, tuple[str, int]]:
    """Parent and exit code of each class as the docstring draws them; without a code of its own, the parent's."""
    drawn: dict[str, tuple[str, int]] = {}
    path: list[str] = []
    for branch, name, code in re.findall(
        r"^    ([│├└ ]*)([A-Z]\w+)(?: \(\w+\))?(?: +(\d+))?", errors.__doc__ or "", re.M
    ):
        depth = {0: 0, 2: 1, 6: 2}[len(branch)]
        path = [*path[:depth], name]
        parent = path[depth - 1] if depth else ""
        drawn[name] = (parent, int(code) if code else drawn[parent][1])
    return drawn


def test_every_error_is_drawn_in_the_module_docstring_below_its_parent() -> None:
    real = {cls.__name__: cls.__bases__[0].__name__ if cls is not CompassError else "" for cls in tree()}
    assert {name: parent for name, (parent, _) in drawing().items()} == real


def test_the_drawn_exit_codes_are_true() -> None:
    assert {name: code for name, (_, code) in drawing().items()} == {cls.__name__: cls.exit_code for cls in tree()}


@pytest.mark.parametrize("cls", tree(), ids=lambda cls: cls.__name__)
def test_every_error_says_in_its_docstring_what_it_means(cls: type[CompassError]) -> None:
    assert cls.__dict__.get("__doc__")


@pytest.mark.parametrize("cls", [errors.ConfigError, errors.DataError, errors.EmptyInput])
def test_wrong_values_are_value_errors_too(cls: type[CompassError]) -> None:
    assert issubclass(cls, ValueError)
