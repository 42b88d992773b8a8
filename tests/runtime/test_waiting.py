"""A run that stands still says what it waits for, and ends in the end."""

from __future__ import annotations

import io
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from compass_ray.artifacts import Receipt, artifact
from compass_ray.errors import ResourcesMissing
from compass_ray.interrupts import resumable
from compass_ray.runtime.cluster import connect
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.head import why_silent
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import map_keys, session
from compass_ray.runtime.waiting import ClusterState, Waiting

STILL = ClusterState((("1 CPU", 5),), {"CPU": 0.0}, {"CPU": 2.0}, nodes=1)
AT_WORK = replace(STILL, used={"CPU": 2.0})
FOREIGN = replace(AT_WORK, ours=False)
BESIDE = replace(AT_WORK, ours=True)


class Watched:
    """Lets a :class:`Waiting` look once a second of a clock of its own."""

    def __init__(self, minutes: float | None) -> None:
        self.now, self.state, self.asked = 0.0, STILL, 0
        self.said: list[tuple[float, str]] = []
        self.ended: list[tuple[float, str]] = []
        self.waiting = Waiting(
            lambda line: self.said.append((self.now, line)),
            self._asked,
            minutes,
            lambda line: self.ended.append((self.now, line)),
            clock=lambda: self.now,
        )

    def _asked(self) -> ClusterState | None:
        self.asked += 1
        return self.state

    def pass_time(self, seconds: int, state: ClusterState | None = STILL) -> None:
        self.state = state  # type: ignore[assignment]
        for _ in range(seconds):
            self.waiting.look()
            self.now += 1


def test_a_standstill_is_said_within_15_seconds_then_every_minute_and_ended_once() -> None:
    watched = Watched(minutes=5)
    watched.pass_time(1000)
    assert watched.said[0][0] <= 15
    assert watched.said[0][1] == (
        "waiting: Ray has no room for 5 × 1 CPU: 0 of 2 CPUs are in use on 1 node; gives up in 5 minutes "
        "(ray.wait_minutes)"
    )
    assert 4 <= len(watched.said) <= 6
    ((when, message),) = watched.ended
    assert 300 <= when <= 310
    assert message.startswith("waited 5 minutes (ray.wait_minutes) in vain: Ray has no room for 5 × 1 CPU")
    assert "the same command goes on from here" in message


@pytest.mark.parametrize("state", [AT_WORK, BESIDE, replace(STILL, asked=()), None])
def test_a_run_at_work_or_of_which_nobody_knows_is_left_alone(state: ClusterState | None) -> None:
    watched = Watched(minutes=0.1)
    watched.pass_time(1000, state)
    assert watched.said == watched.ended == []


def test_where_nobody_can_be_interrupted_a_wait_is_said_and_not_ended() -> None:
    watched = Watched(minutes=None)
    watched.pass_time(10_000)
    assert watched.said[0][1].endswith("0 of 2 CPUs are in use on 1 node (ray.wait_minutes)")
    assert watched.ended == []


def test_others_who_hold_all_cpus_are_waited_for() -> None:
    watched = Watched(minutes=1)
    watched.pass_time(100, FOREIGN)
    assert "2 of 2 CPUs are in use" in watched.said[0][1]
    assert watched.ended


def test_time_at_work_does_not_count_as_waiting() -> None:
    watched = Watched(minutes=1)
    for _ in range(10):
        watched.pass_time(40)
        watched.pass_time(20, AT_WORK)
    assert watched.ended == []
    assert len(watched.said) == 10


def test_the_head_is_asked_every_few_seconds_at_most() -> None:
    watched = Watched(minutes=60)
    watched.pass_time(100)
    assert watched.asked == 25


def test_what_an_autoscaler_does_and_gpus_are_said() -> None:
    state = ClusterState(
        (("1 CPU + 1 GPU", 2),), {}, {"CPU": 4.0}, 3, ("g5.xlarge is starting", "1 × g5.xlarge launching")
    )
    assert state.describe().startswith(
        "Ray has no room for 2 × 1 CPU + 1 GPU: 0 of 4 CPUs are in use and 0 of 0 GPUs are in use on 3 nodes; "
        "the autoscaler: g5.xlarge is starting, 1 × g5.xlarge launching"
    )
    assert "no resources on 1 node" in replace(state, total={}, asked=(("x", 1),), nodes=1).describe()


def nothing(key: str) -> Receipt:
    raise AssertionError(key)


def test_tasks_that_no_node_can_hold_end_a_run_with_what_they_ask_for(local_ray: None, tmp_path: Path) -> None:
    lines = io.StringIO()
    target = artifact(str(tmp_path), "embed", {})
    config = RayConfig(wait_minutes=0.3)
    started = time.monotonic()
    with (
        pytest.raises(ResourcesMissing, match=r"^waited \d+ s \(ray\.wait_minutes\) in vain: .* 1 × 99 CPUs") as caught,
        session(str(tmp_path), config, Display(Console(file=lines, width=300)), "here", "curate") as opened,
    ):
        opened.complete(target, ["00000"], lambda keys: map_keys(nothing, keys, num_cpus=99))
    assert caught.value.exit_code == 4
    assert 18 < time.monotonic() - started < 60
    assert "waiting: Ray has no room for 1 × 99 CPUs" in lines.getvalue()
    assert '"failed"' in (tmp_path / "runs" / "here" / "status.json").read_text()


def test_a_run_in_the_background_of_a_shell_which_ignores_sigint_is_ended_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("compass_ray.runtime.cluster.connect", lambda _: (None, True))
    monkeypatch.setattr("compass_ray.runtime.stage.Head", lambda: lambda: STILL)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with (
            pytest.raises(ResourcesMissing, match="in vain: Ray has no room for 5 × 1 CPU"),
            resumable(),
            session(str(tmp_path), RayConfig(wait_minutes=0.01), Display(Console(quiet=True)), "here") as opened,
        ):
            opened.connect()
            for _ in range(300):
                time.sleep(0.1)  # as Ray's waits do, it looks at signals in between
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def listening(answer: bytes) -> Iterator[str]:
    """A server of one answer, or of none; its address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, suppress(ConnectionError):
                connection.recv(64)
                connection.sendall(answer)
                connection.recv(64)  # until the client has gone

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), None),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no part of Ray"),
        (b"", "has not said a word within 5 s"),
    ],
    ids=["HTTP/2", "HTTP/1.1", "silence"],
)
def test_what_is_no_head_of_a_cluster_is_known_by_what_it_says(answer: bytes, said: str | None) -> None:
    with listening(answer) as address:
        found = why_silent(address)
    assert found is None if said is None else said in str(found)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "no cluster answers at 127.0.0.1:1 (nothing listens there: Connection refused)"),
        ("http://127.0.0.1:8265", "http://127.0.0.1:8265 is that of a dashboard"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(address: str, said: str, monkeypatch: Any) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    with pytest.raises(ResourcesMissing) as caught:
        connect(RayConfig(address=address))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (
            "the token is incorrect",
            r"127\.0\.0\.1:6379 does not take our token \(the token is incorrect\); give its token",
        ),
        (None, r"no cluster answers at 127\.0\.0\.1:6379 \(Failed to connect\); start one"),
    ],
)
def test_a_refused_token_is_told_from_a_cluster_that_is_not_there(
    refusal: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failed(**_: Any) -> None:
        raise ConnectionError("Failed to connect\nmore")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", failed)
    monkeypatch.setattr("compass_ray.runtime.cluster.why_silent", lambda _: None)
    monkeypatch.setattr("compass_ray.runtime.cluster._refusal", lambda _: refusal)
    with pytest.raises(ResourcesMissing, match=said):
        connect(RayConfig(address="127.0.0.1:6379"))


def test_a_local_ray_that_cannot_start_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: Any) -> None:
        raise OSError("AF_UNIX path length cannot exceed 107 bytes: /tmp/x\nmore")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", refused)
    monkeypatch.setattr("compass_ray.runtime.cluster._started_here", lambda: None)
    with pytest.raises(ResourcesMissing, match=r"^no local Ray .* 107 bytes: /tmp/x; Ray keeps .* RAY_TMPDIR .* HOME"):
        connect(RayConfig())
