"""Laws of the alias transitions, and what their file may hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import storage
from compass_ray.errors import AliasMoved, ArtifactCorrupt, RegistryError
from compass_ray.registry.aliases import Aliases, read, swap

VERSIONS = st.sampled_from(["0" * 8, "1" * 8, "2" * 8])
MAYBE = st.none() | VERSIONS
ALIASES = st.builds(Aliases, generation=st.integers(0, 9), champion=MAYBE, candidate=MAYBE, previous=MAYBE)


@given(ALIASES, VERSIONS)
def test_a_promoted_version_is_champion_and_no_candidate(aliases: Aliases, version: str) -> None:
    after = aliases.promoted(version)
    assert after.champion == version
    assert after.candidate == (None if aliases.candidate == version else aliases.candidate)
    assert after.previous == (aliases.previous if aliases.champion == version else aliases.champion)


@given(ALIASES, VERSIONS)
def test_promoting_twice_is_promoting_once(aliases: Aliases, version: str) -> None:
    once = aliases.promoted(version)
    assert once.promoted(version) == once


@given(ALIASES.filter(lambda aliases: aliases.champion is not None), VERSIONS)
def test_a_rollback_undoes_a_promotion(aliases: Aliases, version: str) -> None:
    after = aliases.promoted(version)
    if version != aliases.champion:
        assert after.rolled_back().champion == aliases.champion


@given(ALIASES.filter(lambda aliases: None not in (aliases.champion, aliases.previous)))
def test_two_rollbacks_change_nothing(aliases: Aliases) -> None:
    assert aliases.rolled_back().rolled_back() == aliases
    assert aliases.rolled_back().candidate == aliases.candidate


@given(ALIASES, VERSIONS)
def test_a_candidate_changes_neither_champion_nor_previous(aliases: Aliases, version: str) -> None:
    after = aliases.with_candidate(version)
    assert replace(after, candidate=None) == replace(aliases, candidate=None)
    assert after.candidate == (aliases.candidate if version == aliases.champion else version)


def test_without_a_previous_champion_there_is_no_rollback() -> None:
    with pytest.raises(RegistryError, match="no previous champion"):
        Aliases(champion="0" * 8).rolled_back()


def test_a_move_that_changes_nothing_is_not_written(tmp_path: Path) -> None:
    url = str(tmp_path / "aliases.json")
    assert swap(url, read(url), Aliases()) == Aliases()
    assert not storage.exists(url)


def test_the_later_of_two_moves_from_one_state_is_told(tmp_path: Path) -> None:
    url = str(tmp_path / "aliases.json")
    seen = read(url)
    assert swap(url, seen, Aliases(champion="0" * 8)).generation == 1
    with pytest.raises(AliasMoved, match=r"aliases\.json: somebody else has moved the aliases since generation 0"):
        swap(url, seen, Aliases(champion="1" * 8))
    assert read(url).aliases == Aliases(1, champion="0" * 8)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"generation": "1"}', b'{"generation": 1, "champion": "../x"}', b'{"best": null}', b"\xff"]
)
def test_a_file_that_holds_no_aliases_is_corrupt(tmp_path: Path, data: bytes) -> None:
    url = str(tmp_path / "aliases.json")
    storage.write_bytes(url, data)
    with pytest.raises(ArtifactCorrupt, match=r"aliases\.json: not a file of aliases"):
        read(url)
