"""The servers at one end of the link, each with its client at the other end."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import psutil
from zmq.auth import create_certificates, load_certificate

from benchmarks.fio import totals
from benchmarks.own_daemon import own_daemon
from benchmarks.tcp.cells import FILE_BYTES, Cell
from benchmarks.tcp.link import SERVER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.tcp.link import Link

_PORTS: Final = iter(range(7100, 65535))
_START_TIMEOUT_S: Final = 20.0


class Contender(Protocol):
    """A server and its client."""

    def run(self, cell: Cell, seconds: float) -> dict[str, float]:
        """rate; p50_us at depth 1; CPU time of server (server_us) and client (client_us) for an operation."""


def _cpu_s(pids: Sequence[int]) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


class Aiod:
    """A daemon, and a process with its clients."""

    def __init__(self, pids: Sequence[int], client: subprocess.Popen[str], *, prepared: bool) -> None:
        self._pids = pids
        self._client = client
        self._prepared = prepared

    def run(self, cell: Cell, seconds: float) -> dict[str, float]:
        """See Contender."""
        assert self._client.stdin is not None  # noqa: S101 - it is a pipe
        assert self._client.stdout is not None  # noqa: S101
        before_s = _cpu_s(self._pids)
        asked = {"cell": cell._asdict(), "seconds": seconds, "prepared": self._prepared}
        self._client.stdin.write(json.dumps(asked) + "\n")
        self._client.stdin.flush()
        figures: dict[str, float] = json.loads(self._client.stdout.readline())
        used_s = _cpu_s(self._pids) - before_s
        return figures | {"server_us": used_s / figures["operations"] * 1e6}


class Nbdkit:
    """nbdkit's file plugin, and fio with libnbd."""

    def __init__(self, pid: int, uri: str, prefix: Sequence[str]) -> None:
        self._pid = pid
        self._uri = uri
        self._prefix = prefix

    def run(self, cell: Cell, seconds: float) -> dict[str, float]:
        """See Contender."""
        before_s = _cpu_s([self._pid])
        done = totals(
            "--ioengine=nbd",
            f"--uri={self._uri}",
            rw="randwrite" if cell.op == "write" else "randread",
            block_bytes=cell.block_bytes,
            depth=cell.depth,
            jobs=1,
            size=FILE_BYTES,
            seconds=seconds,
            prefix=self._prefix,
        )
        used_s = _cpu_s([self._pid]) - before_s
        each_us = 1e6 / done.operations
        p50_us = sorted(done.latency_ns.elements())[done.operations // 2] / 1e3 if cell.depth == 1 else 0.0
        return {
            "rate": done.rate,
            "p50_us": p50_us,
            "operations": done.operations,
            "client_us": done.cpu_s * each_us,
            "server_us": used_s * each_us,
        }


@contextmanager
def _client(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """load.py; it ends with its standard input."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdin is not None  # noqa: S101 - it is a pipe
        assert client.stdout is not None  # noqa: S101
        if client.stdout.readline() != "ready\n":
            raise RuntimeError("the client did not start")
        yield client
        client.stdin.close()


def _aiods(stack: ExitStack, ends: Link, data: Path, name: str, *, curve: bool) -> dict[str, Contender]:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiod-b-")))
    address = f"{SERVER}:{next(_PORTS)}"
    toml, keys = "insecure_tcp = true\n", []
    if curve:
        (_, secret), (client_public, client_secret) = (create_certificates(directory, who) for who in ("server", "me"))
        Path(secret).chmod(0o600)
        public = load_certificate(client_public)[0].decode()
        toml = f'secret_key = "{secret}"\n[keys.me]\npublic_key = "{public}"\nuser = "root"\n'
        keys = [client_secret, str(directory / "server.key")]
    toml = f'[tcp]\nlisten = "{address}"\n{toml}'
    daemon = stack.enter_context(own_daemon(directory, data, toml, ends.server))
    command = [*ends.client, sys.executable, "-m", "benchmarks.tcp.load", f"tcp://{address}", *keys]
    client = stack.enter_context(_client(command))
    pids = daemon.pids()
    return {name: Aiod(pids, client, prepared=False), f"{name}, prepared": Aiod(pids, client, prepared=True)}


def _certificates(directory: Path) -> None:
    """A CA and the server's certificate, where nbdkit looks for them."""

    def openssl(*arguments: str) -> None:
        command = ["openssl", *arguments]
        subprocess.run(command, cwd=directory, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new, "-subj", "/CN=ca", "-keyout", "ca-key.pem", "-out", "ca-cert.pem")
    openssl("req", *new, "-subj", "/CN=server", "-keyout", "server-key.pem", "-out", "request.pem")
    (directory / "names").write_text(f"subjectAltName=IP:{SERVER}\n")
    signed = ("-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-extfile", "names")
    openssl("x509", "-req", "-in", "request.pem", *signed, "-out", "server-cert.pem")


@contextmanager
def _nbdkit(ends: Link, file: Path, *more: str, scheme: str = "nbd") -> Iterator[Nbdkit]:
    port = next(_PORTS)
    command = [*ends.server, "nbdkit", "-f", "-i", SERVER, "-p", str(port), *more, "file", str(file)]
    uri = f"{scheme}://{SERVER}:{port}"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            end_s = time.monotonic() + _START_TIMEOUT_S
            while subprocess.run([*ends.client, "nbdinfo", uri], capture_output=True, check=False).returncode:
                if process.poll() is not None or time.monotonic() > end_s:
                    raise RuntimeError("nbdkit did not start")
                time.sleep(0.05)
            yield Nbdkit(process.pid, uri, ends.client)
        finally:
            process.terminate()


@contextmanager
def contenders(ends: Link, data: Path) -> Iterator[dict[str, Any]]:
    """Start all of them, serving `data`/file."""
    with ExitStack() as stack:
        certificates = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _certificates(certificates)
        file = data / "file"
        tls = ("--tls=require", f"--tls-certificates={certificates}")
        yield {
            **_aiods(stack, ends, data, "aiod", curve=False),
            "nbdkit": stack.enter_context(_nbdkit(ends, file)),
            **_aiods(stack, ends, data, "aiod, CURVE", curve=True),
            "nbdkit, TLS": stack.enter_context(_nbdkit(ends, file, *tls, scheme="nbds")),
        }
