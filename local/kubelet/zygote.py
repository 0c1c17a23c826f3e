"""The warm parent's program: layers of processes that have imported modules and wait to be forked.

Layer 0 has imported nothing and starts plain commands and the first Python programs; each further
layer is forked from the one before and imports some modules more. The daemon talks to each layer
over a socket of its own: a layer announces itself there, and takes the two files of a launch (the
supervisor's channel and the log). A layer never waits for anybody but the daemon, computes nothing
and starts no thread.

Run as `python -m kubeloop.local.kubelet.zygote SETTINGS` by `process.ProcessRunner`.
"""

from __future__ import annotations

import gc
import json
import os
import select
import signal
import socket
import sys
from typing import NoReturn, TypedDict

from kubeloop.local.kubelet import interpreter, linux, preloaded, supervisor, wire
from kubeloop.local.kubelet.python_command import parse_python_command


class ZygoteSettings(TypedDict):
    """What the daemon passes on the command line, as JSON."""

    control_fds: list[int]
    """One socket a layer."""
    layers: list[list[str]]
    """Modules of layers 1, 2, …"""


class Announcement(TypedDict):
    """What a layer sends, one line of JSON, when it can be forked."""

    pid: int
    seconds: float
    num_threads: int
    skipped: dict[str, str]
    sources: dict[str, int]


class _Layer:
    def __init__(self, controls: list[socket.socket], *, path: list[str]) -> None:
        self._controls = controls
        self._path = path
        self._env = dict(os.environ)
        self._env_reads: dict[str, str | None] = {}

    def serve(self, layers: list[list[str]]) -> NoReturn:
        """Start the next layer, then fork on request for as long as the daemon lives."""
        started = preloaded.Preload(skipped={}, seconds=0)
        while True:
            gc.collect()
            gc.freeze()
            self._announce(started)
            if not layers or os.fork() != 0:
                self._serve_requests(is_last=not layers)
            linux.die_with_parent(os.getppid())
            self._controls.pop(0).close()
            with preloaded.recording_env_reads() as reads:
                started = preloaded.preload(layers[0])
            self._env_reads |= reads
            layers = layers[1:]

    def _announce(self, preload: preloaded.Preload) -> None:
        announcement: Announcement = {
            "pid": os.getpid(),
            "seconds": preload.seconds,
            "num_threads": linux.count_threads(),
            "skipped": preload.skipped,
            "sources": preloaded.list_sources(),
        }
        try:
            self._controls[0].sendall(json.dumps(announcement).encode() + b"\n")
        except BrokenPipeError:  # the daemon has gone
            os._exit(0)

    def _serve_requests(self, *, is_last: bool) -> NoReturn:
        for control in self._controls[1:]:
            control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors need no one to wait for them
        self._warmth = interpreter.Warmth.take(
            path=self._path, env=self._env, env_reads=self._env_reads
        )
        # Only the last one: those before it share their memory with it, and are hardly forked.
        for _ in linux.collapse_memory() if is_last else ():
            if select.select([self._controls[0]], [], [], 0)[0]:
                self._serve_request()
        while True:
            self._serve_request()

    def _serve_request(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._controls[0], 1, 2)
        if not data:
            os._exit(0)
        channel = socket.socket(fileno=fds[0])
        if os.fork() == 0:
            self._controls[0].close()
            supervisor.supervise(channel, log_fd=fds[1], run=self._run)
        channel.close()
        os.close(fds[1])

    def _run(self, request: wire.LaunchRequest) -> NoReturn:
        """In the pod's process: run the program in this very interpreter, or a new one."""
        argv, env = request["argv"], request["env"]
        if request["warm"]:
            program = parse_python_command(argv)
            if program and interpreter.is_faithful(program, env=env, warmth=self._warmth):
                _set_python_signals()
                os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # the supervisor sees that it runs
                interpreter.run(program, argv=argv, env=env, warmth=self._warmth)
        os.execvpe(argv[0], argv, env)  # noqa: S606  # no shell is wanted


def _set_python_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if hasattr(signal, "SIGXFSZ"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def main() -> NoReturn:
    """Become layer 0."""
    settings: ZygoteSettings = json.loads(sys.argv[1])
    linux.die_with_parent(os.getppid())
    linux.set_name("kubeloop-warm")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the daemon's to handle
    gc.disable()
    controls = [socket.socket(fileno=fd) for fd in settings["control_fds"]]
    path = [entry for entry in sys.path[1:] if entry]
    _Layer(controls, path=path).serve(settings["layers"])


if __name__ == "__main__":
    main()
