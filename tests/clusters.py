"""A cluster on loopback as `ray start` makes one, for the tests of what talks to one."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conftest import clean_environment

ROOT = Path(__file__).parent.parent
_BIN = Path(sys.executable).parent
RAY = str(_BIN / "ray")


class Cluster:
    """A head node with token auth, in a home of its own. The checkout is what its nodes have installed."""

    def __init__(self, home: Path, temporary: str) -> None:
        self.port, self.dashboard_port, self.agent_port = _free_ports(3)
        self.home = home
        self.environment = clean_environment(
            home,
            RAY_AUTH_MODE="token",
            RAY_TMPDIR=temporary,
            PYTHONPATH=str(ROOT),
            PATH=f"{_BIN}:/usr/local/bin:/usr/bin:/bin",
        )
        self.address = f"127.0.0.1:{self.port}"
        self.dashboard = f"http://127.0.0.1:{self.dashboard_port}"

    def run(self, *command: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """A program of a user who has the cluster's token."""
        return subprocess.run(
            command,
            env={**self.environment, **variables},
            cwd=cwd or self.home,
            capture_output=True,
            text=True,
            timeout=240,
        )

    def compass(self, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """``compass-ray``, which finds the cluster's job server."""
        variables = {"RAY_API_SERVER_ADDRESS": self.dashboard, **variables}
        return self.run(sys.executable, "-m", "compass_ray", *arguments, cwd=cwd, **variables)


@contextmanager
def running_cluster(home: Path) -> Iterator[Cluster]:
    """A cluster that ends with the block."""
    home.mkdir(exist_ok=True)
    temporary = tempfile.mkdtemp(prefix="ray-")  # short, because Ray puts sockets below it
    cluster = Cluster(home, temporary)
    made = cluster.run(RAY, "get-auth-token", "--generate")
    assert made.returncode == 0, made.stderr
    (home / ".ray" / "auth_token").chmod(0o600)
    process = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={cluster.port}",
         "--dashboard-host=127.0.0.1", f"--dashboard-port={cluster.dashboard_port}",
         f"--dashboard-agent-listen-port={cluster.agent_port}", "--num-cpus=2", "--disable-usage-stats"],
        env=cluster.environment, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        written = []
        for line in process.stdout:
            written.append(line)
            if "Ray runtime started" in line:
                break
        else:
            raise RuntimeError(f"ray start --head ended before the runtime was up: {''.join(written)}")
        yield cluster
    finally:
        process.terminate()
        process.wait(timeout=60)
        shutil.rmtree(temporary, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    """Ports below the ephemeral range, from which another Ray on this machine takes its own."""
    found: list[int] = []
    for port in random.sample(range(20000, 30000), 200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free port between 20000 and 30000")
