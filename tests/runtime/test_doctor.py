"""Checks of a machine that need no cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from compass_ray.errors import ResourcesMissing
from compass_ray.runtime.doctor import Check, attempt, packages_here, token_auth, version_reader, versions_agree

TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_token(home: Path, mode: int) -> None:
    file = home / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text(TOKEN)
    file.chmod(mode)


def the_check() -> Check:
    (check,) = token_auth()
    assert TOKEN not in check.found + check.advice
    return check


@pytest.mark.parametrize(
    ("mode", "state", "found"),
    [
        ("", "good", "off: RAY_AUTH_MODE is not set, and there is no "),
        ("disabled", "good", "off: RAY_AUTH_MODE is disabled"),
        ("token", "failed", "RAY_AUTH_MODE is token, and {home}/.ray/auth_token is not there"),
        ("tokn", "failed", "RAY_AUTH_MODE is 'tokn'"),
    ],
)
def test_the_mode_of_token_auth_is_one_that_ray_knows_and_has_its_token(
    home: Path, monkeypatch: pytest.MonkeyPatch, mode: str, state: str, found: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    check = the_check()
    assert check.state == state
    assert check.found.startswith(found.format(home=home))


@pytest.mark.parametrize(
    ("permissions", "state"), [(0o600, "good"), (0o400, "good"), (0o640, "failed"), (0o644, "failed")]
)
def test_a_token_that_others_can_read_is_a_failure(home: Path, permissions: int, state: str) -> None:
    write_token(home, permissions)
    check = the_check()
    assert check.state == state
    if state == "failed":
        assert f"mode {permissions:04o}" in check.found
        assert check.advice == f"chmod 600 {home}/.ray/auth_token"


def test_a_token_from_the_environment_is_used_and_not_shown(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert the_check().found == "on: token in RAY_AUTH_TOKEN"


def test_the_packages_of_this_checkout_are_there() -> None:
    (check,) = packages_here()
    assert check.state == "good"
    assert "ray 2." in check.found


def test_a_node_with_other_versions_is_named_with_both() -> None:
    here = version_reader()()
    agreeing, other, dead = dict(here), {**here, "torch": "1.0.0"}, TimeoutError("no answer within 60 s\nmore")
    (check,) = versions_agree({"10.0.0.1": agreeing, "10.0.0.2": other, "10.0.0.3": dead})
    assert check.state == "failed"
    assert check.found == f"10.0.0.2: torch 1.0.0, here {here['torch']}; 10.0.0.3: TimeoutError: no answer within 60 s"
    (check,) = versions_agree({"10.0.0.1": agreeing, "10.0.0.2": {**here, "faiss": "absent"}})
    assert (check.state, check.found) == ("warning", f"10.0.0.2: faiss absent, here {here['faiss']}")
    (check,) = versions_agree({"10.0.0.1": agreeing})
    assert check.state == "good"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ResourcesMissing("no GPU here; join a larger cluster"), ("no GPU here", "join a larger cluster")),
        (PermissionError(13, "Permission denied"), ("PermissionError: [Errno 13] Permission denied", "")),
    ],
)
def test_an_error_is_a_failed_check_after_those_that_were_made(error: Exception, expected: tuple[str, str]) -> None:
    def checks() -> Iterator[Check]:
        yield Check("one", "good", "found")
        raise error

    assert attempt("two", checks) == [Check("one", "good", "found"), Check("two", "failed", *expected)]
