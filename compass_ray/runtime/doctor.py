"""Checks of a machine and its cluster: packages, token auth, resources, and whether all nodes are alike.

Cost: seconds; one task on each node, which takes none of its CPUs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
import ray.exceptions

from compass_ray.errors import CompassError
from compass_ray.runtime.cluster import connect
from compass_ray.runtime.config import RayConfig

State = Literal["good", "warning", "failed"]
Checks = Callable[[], Iterable["Check"]]

_GIB = 1 << 30
_NODE_S = 60
_SMALL_STORE = _GIB // 2
_OPTIONAL = {"faiss"}


@dataclass(frozen=True)
class Check:
    """One line of the table: what was looked at, what was found, and what to do about it."""

    name: str
    state: State
    found: str
    advice: str = ""


def attempt(name: str, checks: Checks) -> list[Check]:
    """Collect the checks of one function. An error, whatever it is, is the last that it has found."""
    found: list[Check] = []
    try:
        found.extend(checks())
    except Exception as exc:  # noqa: BLE001 nothing goes on with it
        found.append(failure(name, exc))
    return found


def failure(name: str, error: Exception) -> Check:
    """Make a failed check of an error. Ours say what is wrong, and after a semicolon what to do."""
    if not isinstance(error, CompassError):
        return Check(name, "failed", brief(error))
    found, _, advice = str(error).partition("; ")
    return Check(name, "failed", found, advice)


def brief(error: Exception) -> str:
    """Shorten an error to its kind and first line. Ray's go on for a page."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def version_reader() -> Callable[[], dict[str, str]]:
    """Make a function that reads the versions of Python and of packages.

    The packages are those whose results or protocol depend on their versions.

    It is made here because Ray sends inner functions by value: the nodes may have another compass_ray, or none.
    """

    def read() -> dict[str, str]:
        import platform
        from importlib.metadata import PackageNotFoundError, distributions, version

        found = {"python": platform.python_version()}
        for name in ("compass_ray", "ray", "pyarrow", "numpy", "torch"):
            try:
                found[name] = version(name).partition("+")[0]  # builds for CPUs and GPUs are one version
            except PackageNotFoundError:
                found[name] = "absent"
        builds = {
            f"{item.metadata['Name']} {item.version}"
            for item in distributions()
            if item.metadata["Name"].startswith("faiss-")
        }
        found["faiss"] = " and ".join(sorted(builds)) or "absent"
        return found

    return read


def packages_here() -> Iterator[Check]:
    """Check the versions on this machine."""
    versions = version_reader()()
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "faiss")
    if absent := [name for name, version in versions.items() if version == "absent" and name not in _OPTIONAL]:
        yield Check("packages", "failed", found, f"`pip install compass_ray`; absent: {', '.join(absent)}")
    else:
        yield Check("packages", "good", found)


def token_auth() -> Iterator[Check]:
    """Tell whether Ray would send a token, and whether that is private. The token itself is not read."""
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode.lower() not in ("", "token", "disabled"):
        advice = "Ray reads an unknown mode as disabled; expected token or disabled"
        yield Check("token auth", "failed", f"RAY_AUTH_MODE is '{mode}'", advice)
        return
    if mode.lower() == "disabled":
        yield Check("token auth", "good", "off: RAY_AUTH_MODE is disabled")
        return
    if os.environ.get("RAY_AUTH_TOKEN"):
        yield Check("token auth", "good", "on: token in RAY_AUTH_TOKEN")
        return
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    try:
        permissions = stat.S_IMODE(file.stat().st_mode)
    except FileNotFoundError:
        if mode:
            advice = "`ray get-auth-token --generate`, or copy the cluster's token there; then chmod 600"
            yield Check("token auth", "failed", f"RAY_AUTH_MODE is token, and {file} is not there", advice)
        else:
            yield Check("token auth", "good", f"off: RAY_AUTH_MODE is not set, and there is no {file}")
        return
    if permissions & 0o077:
        found = f"{file} has mode {permissions:04o}: others on this machine can read the token"
        yield Check("token auth", "failed", found, f"chmod 600 {file}")
    else:
        yield Check("token auth", "good", f"on: token in {file}")


def cluster(config: RayConfig) -> Iterator[Check]:
    """Check what a config's cluster has, and whether its nodes match this machine. Joins it, or starts a local Ray."""
    connect(config)
    nodes = alive_nodes()
    total = ray.cluster_resources()
    yield Check("ray", "good", f"Ray {ray.__version__} at {ray.get_runtime_context().gcs_address}")
    yield from _exposed(nodes)
    yield _resources(len(nodes), total)
    yield from versions_agree(on_each_node(version_reader()))


def _exposed(nodes: dict[str, str]) -> Iterator[Check]:
    beyond = [address for address in nodes.values() if not address.startswith("127.")]
    if beyond and os.environ.get("RAY_AUTH_MODE", "").lower() != "token":  # Ray sets it where it finds a token
        yield Check(
            "exposure",
            "warning",
            f"no token auth, and {beyond[0]} is not a loopback address: who reaches its ports runs code there",
            "set RAY_AUTH_MODE=token for the cluster and here (docs/howto/clusters.md)",
        )


def _resources(nodes: int, total: dict[str, float]) -> Check:
    store = total.get("object_store_memory", 0)
    found = (
        f"{nodes} node{'' if nodes == 1 else 's'}, {total.get('CPU', 0):g} CPUs, {total.get('GPU', 0):g} GPUs, "
        f"{total.get('memory', 0) / _GIB:.1f} GiB memory, {store / _GIB:.1f} GiB object store"
    )
    if not total.get("CPU"):
        return Check("resources", "failed", found, "add a node with CPUs: no task can run")
    if store < _SMALL_STORE:
        return Check("resources", "warning", found, "give the object store more memory, or it spills to disk")
    return Check("resources", "good", found)


def versions_agree(versions: dict[str, Any]) -> Iterator[Check]:
    """Tell whether the nodes' versions are what this machine has.

    A node that gave no answer has its error in place of them.
    """
    here = version_reader()()
    differences: list[str] = []
    faiss: list[str] = []
    for node, there in versions.items():
        if isinstance(there, Exception):
            differences.append(f"{node}: {brief(there)}")
            continue
        for name, version in there.items():
            if version != here[name]:
                (faiss if name in _OPTIONAL else differences).append(f"{node}: {name} {version}, here {here[name]}")
    advice = "install the same versions everywhere; results and messages between nodes depend on them"
    if differences:
        yield Check("nodes", "failed", "; ".join(differences + faiss), advice)
    elif faiss:
        yield Check("nodes", "warning", "; ".join(faiss), advice)
    else:
        yield Check("nodes", "good", f"{len(versions)} with the same versions as here")


def alive_nodes() -> dict[str, str]:
    """List the addresses of the cluster's nodes by id."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


def on_each_node(function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
    """Run a function on every alive node.

    Returns what it returned by the node's name; an exception where a node gave no answer.

    A node has a minute for it: starting a worker and importing packages takes seconds on a slow disk.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(function)
    pending = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(*arguments): (
            f"{address} ({node[:8]})"
        )
        for node, address in alive_nodes().items()
    }
    answered, late = ray.wait(list(pending), num_returns=len(pending), timeout=_NODE_S)
    found: dict[str, Any] = {}
    for answer in answered:
        try:
            found[pending[answer]] = ray.get(answer)
        except ray.exceptions.RayError as exc:
            found[pending[answer]] = exc.cause if isinstance(exc, ray.exceptions.RayTaskError) else exc
    for answer in late:
        ray.cancel(answer, force=True)
        found[pending[answer]] = TimeoutError(f"no answer within {_NODE_S} s")
    return dict(sorted(found.items()))
