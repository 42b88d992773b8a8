"""A Ray cluster of several nodes on one machine, for testing: what ``up`` and ``down`` do.

Every node is a ``ray start --block`` in a session of its own, so that a node is what carries its session id, and ends
as a machine would when that session is killed. Nodes have loopback addresses of their own and ask for a token; what
Ray binds to all interfaces whatever it is told (its gRPC ports, its metrics page) is behind that token but for the
metrics. Linux alone: Ray has no clusters of several nodes elsewhere.

The cluster's folder holds ``cluster.json`` (nodes by role and process id, addresses), ``auth_token`` and the nodes'
output; Ray's own files are below a short temporary folder, because sockets have short names.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
DEFAULT = Path.home() / ".compass-ray-cluster"
OBJECT_STORE_BYTES = 1 << 29
START_S = 90
STOP_S = 20


def main_up() -> None:
    """Run ``up``. It starts a cluster and prints the lines that make a shell use it."""
    parser = argparse.ArgumentParser(
        prog="up", description='Start a Ray cluster on this machine: eval "$(cluster_configs/local/up --workers 2)"'
    )
    parser.add_argument("--workers", type=int, default=0, help="nodes beside the head; 0: the head does the work")
    parser.add_argument("--cpus", type=int, default=2, help="logical CPUs of each worker; a head with workers has none")
    parser.add_argument("--dir", type=Path, default=DEFAULT, help="the cluster's folder (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.workers < 0 or arguments.cpus < 1:
        parser.error("expected --workers of at least 0 and --cpus of at least 1")
    for name, value in up(arguments.dir.absolute(), arguments.workers, arguments.cpus).items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


def main_down() -> None:
    """Run ``down``: end what ``up`` has started."""
    parser = argparse.ArgumentParser(prog="down", description="End the cluster that `up` has started.")
    parser.add_argument("--dir", type=Path, default=DEFAULT, help="the cluster's folder (default: %(default)s)")
    parser.add_argument("--keep-logs", action="store_true", help="leave Ray's logs and the nodes' output in DIR/logs")
    arguments = parser.parse_args()
    down(arguments.dir.absolute(), keep_logs=arguments.keep_logs)


def up(folder: Path, workers: int, cpus: int) -> dict[str, str]:
    """Start a head and workers; the environment variables with which programs join them.

    A start that fails half-way ends what it has started, and shows the output of the node that failed.
    """
    if (folder / "cluster.json").exists():
        sys.exit(f"error: {folder} holds a cluster; end it with `down --dir {folder}`, or give another --dir")
    ray, (port, dashboard, client, *agents) = _ray(), _free_ports(4 + workers)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = tempfile.mkdtemp(prefix="ray-")
    token = folder / "auth_token"
    with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    address = f"{_host(0)}:{port}"
    state: dict[str, Any] = {"address": address, "temporary": temporary, "nodes": []}
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = inherited | auth | {"RAY_TMPDIR": temporary}

    def start(role: str, *options: str) -> None:
        number = len(state["nodes"])
        command = [
            ray, "start", "--block", f"--node-ip-address={_host(number)}", "--disable-usage-stats",
            f"--dashboard-agent-listen-port={agents[number]}", f"--object-store-memory={OBJECT_STORE_BYTES}", *options,
        ]  # fmt: skip
        with (folder / f"{role}.log").open("wb") as log:
            node = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        state["nodes"].append({"role": role, "pid": node.pid, "started": _started(node.pid)})
        (folder / "cluster.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
        _wait_until_up(folder, role, node)

    try:
        start(
            "head", "--head", f"--port={port}", f"--ray-client-server-port={client}", f"--temp-dir={temporary}",
            f"--dashboard-host={LOOPBACK}", f"--dashboard-port={dashboard}", f"--num-cpus={0 if workers else cpus}",
        )  # fmt: skip
        for number in range(1, workers + 1):  # one by one: a node gives up if it has not joined within 30 s
            start(f"worker-{number}", f"--address={address}", f"--num-cpus={cpus}")
    except BaseException:
        down(folder)
        raise
    return {"RAY_ADDRESS": address, "RAY_API_SERVER_ADDRESS": f"http://{LOOPBACK}:{dashboard}"} | auth


def down(folder: Path, *, keep_logs: bool = False) -> None:
    """End every process of the cluster, wait until none is left, and remove its files."""
    try:
        state = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit(f"error: {folder} holds no cluster that `up` has started; give its --dir")
    nodes = [node["pid"] for node in state["nodes"] if _started(node["pid"]) in (None, node["started"])]
    _signal(nodes[::-1], signal.SIGTERM)  # `ray start` ends what it has started, and some workers outlive that
    _wait_until_none(lambda: [pid for pid in nodes if _stat(pid)])
    _signal(_members_of(nodes), signal.SIGKILL)
    if left := _wait_until_none(lambda: _members_of(nodes)):
        sys.exit(f"error: processes {left} do not end; see {folder}")
    if keep_logs:
        (folder / "logs").mkdir(exist_ok=True)
        for logs in Path(state["temporary"]).glob("session_2*/logs"):
            shutil.copytree(logs, folder / "logs" / logs.parent.name, dirs_exist_ok=True)
        for output in folder.glob("*.log"):
            shutil.copy(output, folder / "logs")
    shutil.rmtree(state["temporary"], ignore_errors=True)
    for name in ("auth_token", "cluster.json", *(f"{node['role']}.log" for node in state["nodes"])):
        (folder / name).unlink(missing_ok=True)
    if not any(folder.iterdir()):
        folder.rmdir()


def _host(node: int) -> str:
    """Form the loopback address of a node, another for each.

    Ray takes 127.0.0.1 itself to mean the machine's outer address.
    """
    return f"127.0.0.{10 + node}"


def members(session: int) -> list[int]:
    """Find the processes of a session."""
    everything = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in everything if _stat(pid)[3:4] == [str(session)]]


def _stat(pid: int) -> list[str]:
    """Read ``/proc/<pid>/stat`` from the third field on.

    That is state, parent, group, session ...; empty for the dead.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] == "Z" else fields


def _started(pid: int) -> str | None:
    """Read when a process was started; None for the dead. This tells it from a later one of the same number."""
    stat = _stat(pid)
    return stat[19] if stat else None


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _members_of(nodes: list[int]) -> list[int]:
    return [pid for node in nodes for pid in members(node)]


def _wait_until_none(left: Callable[[], list[int]]) -> list[int]:
    """Wait a while for processes to end; return those still there."""
    deadline = time.monotonic() + STOP_S
    while (there := left()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return there


def _wait_until_up(folder: Path, role: str, node: subprocess.Popen[bytes]) -> None:
    log = folder / f"{role}.log"
    deadline = time.monotonic() + START_S
    while "Ray runtime started" not in (said := log.read_text(encoding="utf-8", errors="replace")):
        if node.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"error: {role} did not start (exit code {node.poll()}):\n{said}")
        time.sleep(0.1)


def _ray() -> str:
    """Find the ``ray`` of this interpreter, of this checkout or of the PATH."""
    checkout = Path(__file__).parent.parent.parent / ".venv" / "bin"
    places = os.pathsep.join([str(Path(sys.executable).parent), str(checkout), os.environ.get("PATH", "")])
    found = shutil.which("ray", path=places)
    return found or sys.exit("error: no `ray` command; install the project (make demo) or activate its environment")


def _free_ports(count: int) -> list[int]:
    """Find free ports below the ephemeral range. So no other program is given them before Ray listens there."""
    found: list[int] = []
    for port in random.sample(range(20000, 30000), 1000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    sys.exit("error: no free port between 20000 and 30000")
