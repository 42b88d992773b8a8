"""How many actors are worth their start."""

from __future__ import annotations

import pytest
import ray
from ray.data._internal import util
from ray.exceptions import ActorDiedError, RayTaskError

from compass_ray.errors import ResourcesMissing, WorkerLost
from compass_ray.runtime.cluster import ray_errors, worthwhile


@pytest.mark.parametrize(
    ("shards", "rows", "room", "asked", "expected"),
    [
        (8, 700, 4, None, 1),  # one actor is done before another has started
        (8, 2_001, 4, None, 2),
        (64, 10**9, 16, None, 16),  # no more than the cluster holds
        (3, 10**9, 16, None, 3),  # nor than there are shards
        (8, 700, 4, 4, 4),  # as asked for
        (8, 700, 4, 9, 4),
        (8, 0, 4, None, 1),
    ],
)
def test_actors_are_as_many_as_have_work_room_and_shards(
    shards: int, rows: int, room: int, asked: int | None, expected: int
) -> None:
    assert worthwhile(shards, rows, 2_000, room, asked) == expected


def _failed_start(raised: str) -> ActorDiedError:
    """What Ray makes of an error in an actor's ``__init__``, as it comes to the driver."""
    task = RayTaskError("Actor.__init__", f"Traceback (most recent call last):\n  File x\n{raised}", ValueError())
    return ActorDiedError(task)


def test_an_error_of_ours_in_the_start_of_an_actor_arrives_as_itself() -> None:
    exc = _failed_start("compass_ray.errors.ResourcesMissing: write x: no space left; make room\nand once more")
    with pytest.raises(ResourcesMissing) as caught, ray_errors():
        raise exc
    assert str(caught.value) == "write x: no space left; make room\nand once more"


def test_another_error_in_the_start_of_an_actor_is_one_line() -> None:
    with pytest.raises(WorkerLost) as caught, ray_errors():
        raise _failed_start("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.")
    message = str(caught.value)
    assert message.startswith("Ray gave up on a worker (an actor could not start: torch.OutOfMemoryError: CUDA out of")
    assert "Traceback" not in message
    assert "\n" not in message


def test_what_ray_data_appends_to_an_error_of_ours_is_not_said() -> None:
    ours = ResourcesMissing("write x: No space left on device; make room")
    appended = util._annotate_exception_with_retry_context(
        ours,
        description="apply UDF transform",
        attempts=1,
        max_attempts=1,
        total_backoff_s=0.0,
        exception_str=str(ours),
    )
    assert "To change retry attempts" in str(appended)
    assert isinstance(appended, ResourcesMissing)
    with pytest.raises(ResourcesMissing) as caught, ray_errors():
        raise RayTaskError("map", "Traceback", appended).as_instanceof_cause()
    assert str(caught.value) == "write x: No space left on device; make room"


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ({"10.0.0.1": "head", "10.0.0.2": "worker-7"}, " (on node worker-7, 10.0.0.2)"),
        ({"10.0.0.1": "10.0.0.1", "10.0.0.2": "10.0.0.2"}, " (on node 10.0.0.2)"),
        ({"10.0.0.2": "alone"}, ""),
    ],
)
@pytest.mark.parametrize("start", [False, True])
def test_what_is_missing_on_one_node_of_several_is_said_with_its_name(
    monkeypatch: pytest.MonkeyPatch, nodes: dict[str, str], said: str, *, start: bool
) -> None:
    named = [{"NodeManagerAddress": address, "NodeName": name} for address, name in nodes.items()]
    monkeypatch.setattr(ray, "nodes", lambda: named)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    text = "list s3://x: the environment has no credentials"
    exc = RayTaskError(
        "read",
        f"Traceback (most recent call last):\n  File x\ncompass_ray.errors.ResourcesMissing: {text}",
        ResourcesMissing(text),
        ip="10.0.0.2",
    )
    with pytest.raises(ResourcesMissing) as caught, ray_errors():
        raise ActorDiedError(exc) if start else exc.as_instanceof_cause()
    assert str(caught.value) == text + said
