"""The process that stands over one pod process: starts it, signals it, and leaves nothing behind.

A supervisor is forked for each process of a pod and forks that process in turn. It adopts every
descendant that loses its parent, however it detached itself, so that all of them can be killed when
the process ends. It holds one end of a socket whose other end only the daemon has: when the daemon
is gone, killed included, the socket ends and the supervisor kills everything and exits.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from kubeloop.local.kubelet import linux, wire

_GRACE_SECONDS = 0.25
"""What helpers of a process that ended (multiprocessing's resource tracker) get to tidy up."""
_KILL_INTERVAL_SECONDS = 0.002

Runner = Callable[[wire.LaunchRequest], NoReturn]
"""Runs the request in the process that calls it."""


def supervise(channel: socket.socket, *, log_fd: int, run: Runner) -> NoReturn:
    """Serve one launch over `channel`, then exit. Called in a process just forked for it."""
    status = 1
    try:
        _Supervisor(channel, log_fd=log_fd).serve(run)
        status = 0
    except BaseException:  # noqa: BLE001  # whatever it is, the daemon's log is where it belongs
        traceback.print_exc()
    finally:
        os._exit(status)


class _Supervisor:
    def __init__(self, channel: socket.socket, *, log_fd: int) -> None:
        self._channel = channel
        self._log_fd = log_fd
        self._main_pid = 0
        self._status: int | None = None
        self._inbox = bytearray()
        self._wake_read, self._wake_write = os.pipe()

    def serve(self, run: Runner) -> None:
        os.setsid()
        linux.set_name("kubeloop-pod")
        linux.adopt_orphans()
        self._listen_for_children()
        request: wire.LaunchRequest | None = wire.receive(self._channel)
        if request is None:
            return
        self._main_pid, error = self._start(request, run)
        if error:
            self._report({"error": error, "at": time.time()})
            return
        self._report({"pid": self._main_pid, "at": time.time()})
        self._reap()
        connected = self._wait_for_end()
        ended_at = time.time()
        self._wait_for_stragglers(_GRACE_SECONDS if connected else 0)
        self._kill_all()
        if self._status is not None:
            self._report({"status": self._status, "at": ended_at})

    def _listen_for_children(self) -> None:
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)

    def _start(self, request: wire.LaunchRequest, run: Runner) -> tuple[int, str]:
        """Fork the process; returns once it runs its program, with the error if it cannot."""
        error_read, error_write = os.pipe()
        supervisor = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                linux.die_with_parent(supervisor)
                _become(request, log_fd=self._log_fd, error_fd=error_write)
                run(request)
            except OSError as error:
                os.write(error_write, json.dumps(_describe(error, request)).encode())
            except BaseException:  # noqa: BLE001  # a fault of ours belongs into the pod's log
                traceback.print_exc()
            finally:
                os._exit(128)
        os.close(error_write)
        os.close(self._log_fd)
        with open(error_read, "rb") as stream:  # noqa: PTH123  # ends when the program is started
            failure = stream.read()
        return pid, json.loads(failure) if failure else ""

    def _wait_for_end(self) -> bool:
        """Until the process has ended; False if the daemon went first."""
        while self._status is None:
            channel = self._channel.fileno()
            readable, _, _ = select.select([channel, self._wake_read], [], [])
            if self._wake_read in readable:
                os.read(self._wake_read, 4096)
                self._reap()
            if channel in readable and not self._obey():
                return False
        return True

    def _wait_for_stragglers(self, grace_seconds: float) -> None:
        deadline = time.monotonic() + grace_seconds
        while self._reap() and (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([self._wake_read], [], [], left)
            if readable:
                os.read(self._wake_read, 4096)

    def _reap(self) -> bool:
        """Collect children that ended; returns whether any is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._main_pid:
                self._status = status

    def _obey(self) -> bool:
        """Carry out the commands that have arrived; False at the end of the stream."""
        try:
            chunk = self._channel.recv(4096)
        except ConnectionError:
            chunk = b""
        self._inbox += chunk
        while len(self._inbox) >= 4:
            end = 4 + wire.parse_length(bytes(self._inbox[:4]))
            if len(self._inbox) < end:
                break
            command: wire.Command = wire.decode(bytes(self._inbox[4:end]))
            del self._inbox[:end]
            self._signal(command["signal"])
        return bool(chunk)

    def _signal(self, number: int) -> None:
        if number == signal.SIGKILL:
            self._kill_all()
        else:
            with suppress(ProcessLookupError):
                os.killpg(self._main_pid, number)

    def _kill_all(self) -> None:
        """Kill descendants until none is left, also those forked meanwhile."""
        while self._reap():
            if self._status is None:  # also where descendants cannot be listed
                with suppress(ProcessLookupError):
                    os.killpg(self._main_pid, signal.SIGKILL)
            for pid in linux.list_descendants(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_KILL_INTERVAL_SECONDS)

    def _report(self, report: wire.Report) -> None:
        with suppress(OSError):  # the daemon is gone; `serve` notices
            self._channel.sendall(wire.encode(report))


def _become(request: wire.LaunchRequest, *, log_fd: int, error_fd: int) -> None:
    """Give this process the session, streams, files, signals and directory of a fresh one."""
    os.setsid()
    linux.prefer_as_memory_victim()
    linux.set_name(request["name"])
    signal.set_wakeup_fd(-1)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log_fd, 1), (log_fd, 2)):
        os.dup2(source, target)
    os.closerange(3, error_fd)
    os.closerange(error_fd + 1, os.sysconf("SC_OPEN_MAX"))
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError):  # a number that libc keeps for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])


def _describe(error: OSError, request: wire.LaunchRequest) -> str:
    what = request["argv"][0] if error.filename is None else error.filename
    return f"{what!r}: {error.strerror}"
