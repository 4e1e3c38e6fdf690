"""Worker processes behind one listening socket, and the parent that keeps them running.

The parent loads the promoted bundle, then forks: workers share its memory, weights and mapped tables included. A worker
that ends, whatever ends it, is started again in its place. SIGTERM and SIGINT end all of them in order.
"""

import gc
import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

import torch
import uvicorn
from threadpoolctl import threadpool_limits

from features.children import die_with_parent
from features.errors import SeminarError
from features.settings import settings
from model.serve.counters import Counters
from model.serve.http import create_app
from model.serve.inspect import Look
from model.serve.keys import Keys
from model.serve.service import Limits, Service
from model.serve.transport import PatientProtocol

log = logging.getLogger(__name__)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BACKLOG = 512
_ENDS = (signal.SIGTERM, signal.SIGINT)
_RESTING_S = 1.0


def serve(
    host: str, port: int, workers: int = 1, limits: Limits | None = None, outside: dict[str, Look] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; SeminarError when the port is taken, or when strangers could ask without a key.

    outside: what the inspect page shows of the rest of the system (model.serve.inspect).
    """
    keys = Keys(settings().api_keys)
    if not keys.configured and host not in LOOPBACK:
        raise SeminarError(
            "host", host, "would be open to everybody", "set SEMINAR_API_KEYS (`seminar keys`), or bind loopback"
        )
    listener = _bind(host, port)
    # One request computes on one core: requests are what runs beside each other. No pool of threads is carried over a fork.
    torch.set_num_threads(1)
    threadpool_limits(1)
    sys.setswitchinterval(0.0005)  # the loop must get to refuse while a thread computes
    counters = Counters(workers)
    service = Service(settings(), limits, counters)
    service.prepare()
    gc.collect()
    gc.freeze()  # a collection in a worker would touch, and so copy, what it shares
    listener.listen(_BACKLOG)
    log.info("serving on http://%s:%d with %d workers", host, listener.getsockname()[1], workers)
    Parent(workers, _Worker(service, keys, listener, outside or {})).run()


def _bind(host: str, port: int) -> socket.socket:
    # Bound here, not by uvicorn, so that a taken port is one clear sentence; nobody can connect before there are workers.
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        remedy = "choose another --port, or a --host of this machine"
        raise SeminarError("port", f"{host}:{port}", f"cannot be bound ({error.strerror})", remedy) from error
    return listener


@dataclass(frozen=True)
class _Worker:
    """What a forked process does."""

    service: Service
    keys: Keys
    listener: socket.socket
    outside: dict[str, Look]

    def __call__(self, number: int) -> None:
        """Answer requests as worker `number` until SIGTERM."""
        self.service.counters.worker = number
        self.service.store.open()
        app = create_app(self.service, self.keys, outside=self.outside)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, http=PatientProtocol, timeout_graceful_shutdown=10
        )
        uvicorn.Server(config).run(sockets=[self.listener])


class Parent:
    """Keeps `workers` forked processes running."""

    def __init__(self, workers: int, work: _Worker) -> None:
        self._work = work
        self._numbers = list(range(workers))
        self._running: dict[int, int] = {}
        self._stopping = False

    def run(self) -> None:
        """Until SIGTERM or SIGINT, then until the workers have ended."""
        for name in _ENDS:
            signal.signal(name, self._stop)
        for number in self._numbers:
            self._fork(number)
        while self._running:
            pid, status = os.wait()
            number = self._running.pop(pid)
            if self._stopping:
                continue
            log.error(
                "worker %d (process %d) ended with %d and is started again", number, pid, os.waitstatus_to_exitcode(status)
            )
            counters = self._work.service.counters
            counters.worker = number
            counters.count("seminar_workers_restarted")
            counters.board.clear(number)
            time.sleep(_RESTING_S)
            self._fork(number)

    def _stop(self, *_: object) -> None:
        self._stopping = True
        for pid in self._running:
            with suppress(ProcessLookupError):  # it has ended, and `run` is about to note it
                os.kill(pid, signal.SIGTERM)

    def _fork(self, number: int) -> None:
        """Begin a worker, unless all are to end. A signal waits until the worker is known: else it would be passed over."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        try:
            pid = None if self._stopping else os.fork()
            if pid == 0:
                self._begin(number)
            if pid:
                self._running[pid] = number
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)

    def _begin(self, number: int) -> NoReturn:
        status = 1
        try:
            for name in _ENDS:
                signal.signal(name, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDS)
            if ask := die_with_parent():
                ask()
            self._work(number)
            status = 0
        except BaseException:
            log.exception("worker %d failed", number)
        finally:
            os._exit(status)
