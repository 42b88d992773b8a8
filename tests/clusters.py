"""A Ray cluster on loopback with token auth, started and ended as a user does."""

from __future__ import annotations

import random
import secrets
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
RAY = str(Path(sys.executable).with_name("ray"))


class Cluster:
    """A cluster that is up; ``variables`` are what a user exports to use it."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        self.variables = variables

    def call(self, *command: str, timeout: int = 240) -> subprocess.CompletedProcess[str]:
        """A command of such a user, in the checkout."""
        environment = clean_environment(self.folder.parent, **self.variables)
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done


@contextmanager
def cluster_of(folder: Path) -> Iterator[Cluster]:
    """A cluster of one node that ends with the block."""
    folder.mkdir()
    port, dashboard, agent = _free_ports(3)
    temporary = tempfile.mkdtemp(prefix="ray-")  # short, because Ray puts sockets below it
    auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "auth_token")}
    environment = clean_environment(folder.parent, **auth, RAY_TMPDIR=temporary)
    (folder / "auth_token").touch(mode=0o600)
    (folder / "auth_token").write_text(secrets.token_hex(32))
    process = subprocess.Popen(
        [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.10", f"--port={port}",
         "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}",
         f"--dashboard-agent-listen-port={agent}", "--num-cpus=2", "--disable-usage-stats"],
        env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
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
        api = {"RAY_ADDRESS": f"127.0.0.10:{port}", "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        yield Cluster(folder, api | auth)
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
