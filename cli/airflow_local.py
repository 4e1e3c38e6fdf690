"""A local Airflow on this repository: api-server, scheduler, dag-processor and triggerer as processes of their own.

LocalExecutor, SQLite, loopback only. The user `admin` has a password that is made once and kept in
`<home>/airflow/password.json`, readable by its owner alone, with the secrets that the processes share beside it. `airflow
standalone` would do much of this, but binds its log servers on all interfaces and leaves its children behind.
"""

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from cli import airflow
from cli.output import Output
from cli.processes import Child
from features.errors import SeminarError

USER = "admin"
COMMANDS = {
    "api-server": ("--workers", "1"),
    "scheduler": ("--skip-serve-logs",),
    "dag-processor": (),
    "triggerer": ("--skip-serve-logs",),
}
HEALTHY = ("metadatabase", "scheduler", "dag_processor", "triggerer")


def environment(home: Path, port: int) -> dict[str, str]:
    """What `cli.airflow.environment` has, and what the processes need to find and trust each other."""
    base = airflow.environment(home)
    root, url = Path(base["AIRFLOW_HOME"]), f"http://127.0.0.1:{port}"
    root.mkdir(parents=True, exist_ok=True)
    return base | {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(root / "password.json"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__SECRET_KEY": _kept(root / "secret.key"),
        "AIRFLOW__API_AUTH__JWT_SECRET": _kept(root / "jwt.key"),
        # A finished task would hold its slot for the five seconds of the usual interval.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    }


def password(home: Path) -> str:
    """The password of `admin`: made when it is asked for first."""
    file = home.absolute() / "airflow" / "password.json"
    if not file.exists():
        _write(file, json.dumps({USER: secrets.token_urlsafe(12)}))
    found: str = json.loads(file.read_text())[USER]
    return found


def _kept(file: Path) -> str:
    if not file.exists():
        _write(file, secrets.token_hex(32))
    return file.read_text()


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)


@contextmanager
def running(home: Path, port: int, patience: float = 300) -> Iterator[list[Child]]:
    """The four processes, healthy; on leaving, all of them and whatever they started are gone.

    SeminarError when one ends by itself, or they are not healthy in time.
    """
    airflow.prepare(home)
    password(home)
    variables, logs = environment(home, port), home.absolute() / "airflow" / "logs"
    with ExitStack() as stack:
        children: list[Child] = []
        stack.callback(_stop, children)
        for name, options in COMMANDS.items():
            children.append(Child([name, *options], logs / f"{name}.log", variables, module="airflow"))
        deadline = time.monotonic() + patience
        while missing := _unhealthy(port):
            for child in children:
                child.check()
            if time.monotonic() > deadline:
                raise SeminarError("Airflow", ", ".join(missing), f"is not healthy after {patience:.0f} s", f"see {logs}")
            time.sleep(0.5)
        yield children


def _unhealthy(port: int) -> list[str]:
    try:
        body = httpx.get(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=5).json()
    except (httpx.HTTPError, ValueError):
        return ["api-server"]
    return [name for name in HEALTHY if (body.get(name) or {}).get("status") != "healthy"]


def _stop(children: list[Child]) -> None:
    """The scheduler first, so that it starts nothing more.

    Tasks that run are killed, while Airflow can still be asked: so they note no failure, and are tried again after the next
    start, from what they had saved.
    """
    family = [process for child in children for process in _descendants(child)]
    for child in sorted(children, key=lambda child: child.log.stem != "scheduler"):
        child.stop()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=10)


def _descendants(child: Child) -> list[psutil.Process]:
    """What a child has started; a scheduler's workers are killed at once."""
    try:
        process = psutil.Process(child.pid)
        found: list[psutil.Process] = process.children(recursive=True)
        if child.log.stem == "scheduler":
            process.terminate()
            for one in found:
                one.kill()
    except psutil.NoSuchProcess:
        return []
    return found


def serve(home: Path, port: int, out: Output) -> None:
    """Run until Ctrl-C or SIGTERM; SeminarError when one of the processes ends by itself."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    _check_free(port)
    signal.signal(signal.SIGTERM, interrupt)
    out.line(f"starting Airflow on {home} ...")
    try:
        with running(home, port) as children:
            out.line(f"Airflow: http://127.0.0.1:{port}, user {USER}, password {password(home)}; Ctrl-C stops it")
            while True:
                for child in children:
                    child.check()
                time.sleep(1)
    except KeyboardInterrupt:
        out.line("stopped")


def _check_free(port: int) -> None:
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SeminarError("port", port, f"cannot be bound ({error.strerror})", "choose another --port") from None
