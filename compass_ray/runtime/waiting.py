"""What a run waits for, if it is not at work: said within seconds, and given up in the end.

Tasks and actors for which no node has room are queued by Ray without a word, for hours if need be: a cluster without a
free CPU looks like one that is busy. Ray's head knows what is asked for and what is in use; it is asked every few
seconds, which costs it some milliseconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

_ASK_S = 4.0
_PATIENCE_S = 10.0
"""How long nothing may run before that is said."""
_REPEAT_S = 60.0
_BELIEVED_S = 10.0
"""How long a run that was seen at work is taken to be: to find out costs a cluster's dashboard more than the rest."""

LOCAL_MINUTES, JOINED_MINUTES = 2.0, 30.0
"""How long a run waits if its config does not say: a local Ray gets no more nodes, a cluster may start some."""

_SHOWN = ("CPU", "GPU")
_THRESHOLD = "RAY_memory_usage_threshold"


@dataclass(frozen=True)
class ClusterState:
    """What the head of a cluster knows.

    Attributes
    ----------
    asked : tuple of (str, int)
        What is queued for want of a node: resources of one, as words, and how many of them.
    used, total : mapping of str to float
        Resources of all nodes.
    nodes : int
    starting : tuple of str
        Nodes that an autoscaler has asked for, and such as failed, as words.
    ours : bool or None
        Whether anything of this job runs; None if nobody could be asked.
    """

    asked: tuple[tuple[str, int], ...]
    used: Mapping[str, float]
    total: Mapping[str, float]
    nodes: int
    starting: tuple[str, ...] = ()
    ours: bool | None = None

    @property
    def stands_still(self) -> bool:
        """Whether something is queued and nothing of this job runs, for certain."""
        idle = not any(self.used.get(name) for name in _SHOWN)
        return bool(self.asked) and (idle or self.ours is False)

    def describe(self) -> str:
        """Say what is asked for and what there is, in one line."""
        asked = ", ".join(f"{count:,} × {what}" for what, count in self.asked)
        there = " and ".join(
            f"{self.used.get(name, 0):g} of {self.total.get(name, 0):g} {name}s are in use"
            for name in _SHOWN
            if self.total.get(name) or name in asked
        )
        nodes = f"{self.nodes} node" if self.nodes == 1 else f"{self.nodes:,} nodes"
        starting = f"; the autoscaler: {', '.join(self.starting)}" if self.starting else ""
        return f"Ray has no room for {asked}: {there or 'no resources'} on {nodes}{starting}{_memory_pressure()}"


class Waiting:
    """Watches for a standstill; :meth:`look` is to be called every second or so.

    Parameters
    ----------
    say : callable
        Takes a line for people.
    state : callable
        Gives the :class:`ClusterState`, or None where it cannot be known.
    minutes : float or None
        How long a standstill may last; None for ever.
    give_up : callable
        Called once, with a message, when it has lasted longer.
    clock : callable
        Seconds that only grow.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        state: Callable[[], ClusterState | None],
        minutes: float | None,
        give_up: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._say, self._state, self._give_up, self._clock = say, state, give_up, clock
        self._patience = float("inf") if minutes is None else 60 * minutes
        self._asked = self._since = self._said = -float("inf")
        self._still = self._ended = False

    def look(self) -> None:
        """Ask the cluster, if it is time to, and say what is to be said."""
        now = self._clock()
        if self._ended or now - self._asked < _ASK_S:
            return
        self._asked = now
        state = self._state()
        if state is None or not state.stands_still:
            self._still = False
            return
        if not self._still:
            self._still, self._since, self._said = True, now, -float("inf")
        waited = now - self._since
        if waited >= self._patience:
            self._ended = True
            self._give_up(
                f"waited {_duration(waited)} (ray.wait_minutes) in vain: {state.describe()}; free or add nodes, or "
                "lower num_cpus and num_gpus of the stage; what is finished is kept, the same command goes on from here"
            )
        elif waited >= _PATIENCE_S - _ASK_S and now - self._said >= _REPEAT_S:
            self._said = now
            left = "" if self._patience == float("inf") else f"; gives up in {_duration(self._patience - waited)}"
            self._say(f"waiting: {state.describe()}{left} (ray.wait_minutes)")


class Head:
    """The head of the cluster that this process has joined, or of its own Ray."""

    def __init__(self) -> None:
        self._seen_at_work = -float("inf")

    def __call__(self) -> ClusterState | None:
        """Ask it; None if it does not answer, or is reached through Ray Client."""
        state = _cluster_state()
        if state is None or not state.asked or not any(state.used.values()):
            return state
        if time.monotonic() - self._seen_at_work < _BELIEVED_S:
            return replace(state, ours=True)
        ours = _runs_here()
        if ours:
            self._seen_at_work = time.monotonic()
        return replace(state, ours=ours)


def _cluster_state() -> ClusterState | None:
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status

    if not ray.is_initialized() or ray.util.client.ray.is_connected():
        return None
    try:
        status = get_cluster_status(ray.get_runtime_context().gcs_address, timeout=5)
    except Exception:  # noqa: BLE001 whatever it is, the run itself will meet it
        return None
    demands = status.resource_demands
    asked = [
        (_resources(bundle.bundle), int(bundle.count))
        for demand in (*demands.ray_task_actor_demand, *demands.placement_group_demand)
        for bundle in demand.bundles_by_count
    ]
    usage = {one.resource_name: one for one in status.cluster_resource_usage}
    used = {name: usage[name].used for name in _SHOWN if name in usage}
    alive = (*status.active_nodes, *status.idle_nodes)
    starting = [f"{one.instance_type_name} {one.details or 'is starting'}" for one in status.pending_nodes]
    starting += [f"{one.count} × {one.instance_type_name} launching" for one in status.pending_launches]
    starting += [f"{one.instance_type_name} failed: {one.details}" for one in status.failed_launches]
    return ClusterState(
        tuple(_grouped(asked)),
        used,
        {name: usage[name].total for name in _SHOWN if name in usage},
        len(alive),
        tuple(starting),
    )


def _runs_here() -> bool | None:
    """Tell whether a task of this job runs. Only the cluster's dashboard knows, and there need not be one."""
    import ray
    from ray.util.state import list_tasks
    from ray.util.state.exception import RayStateApiException

    job = ray.get_runtime_context().get_job_id()
    try:
        return bool(list_tasks(filters=[("job_id", "=", job), ("state", "=", "RUNNING")], limit=1, timeout=5))
    except (RayStateApiException, ConnectionError, OSError, ValueError):
        return None


def _resources(bundle: Mapping[str, float]) -> str:
    named = [(name, amount) for name, amount in sorted(bundle.items()) if amount and ":" not in name]
    words = [f"{amount:g} {name}{'s' if amount != 1 and name in _SHOWN else ''}" for name, amount in named]
    return " + ".join(words) or "a worker"


def _grouped(asked: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    total: dict[str, int] = {}
    for what, count in asked:
        total[what] = total.get(what, 0) + count
    return sorted(total.items())


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} s"


def _memory_pressure() -> str:
    """Say a word on this node's memory. Above its threshold Ray ends tasks as soon as they start."""
    threshold = float(os.environ.get(_THRESHOLD, "0.95"))
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return ""
    sizes: dict[str, Any] = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
    used = 1 - sizes.get("MemAvailable", 0) / max(1, sizes.get("MemTotal", 1))
    if used <= threshold:
        return ""
    return f"; memory of this node is {used:.0%} used, and above {threshold:.0%} Ray ends what it starts"
