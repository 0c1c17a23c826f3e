"""Processes through the warm parent: ends, signals, and nothing left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kubeloop.local.kubelet.process import ProcessRunner, ProcessSpec, StartError
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.testing.processes import BASE_ENV, Machine, is_alive
from kubeloop.testing.waiting import wait_until

DAEMONISE = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        with open('daemon.pid', 'w') as file:
            file.write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
os.wait()
"""


def test_plain_command_runs_in_its_own_environment_and_folder(machine: Machine) -> None:
    outcome = machine.run("sh", "-c", 'pwd; echo "$GREETING"; env | sort', GREETING="hi")

    lines = outcome.output.splitlines()
    assert lines[:2] == [str(machine.folder), "hi"]
    assert {line.partition("=")[0] for line in lines[2:]} - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        *BASE_ENV,
        "GREETING",
    }
    assert outcome.code == 0


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 143), ("kill -KILL $$", 137)],
)
def test_exit_code_of_a_plain_command_is_reported(machine: Machine, script: str, code: int) -> None:
    process, _ = machine.start("sh", "-c", script)

    status = machine.wait(process)

    assert status.code == code
    assert status.signal == max(0, code - 128)
    assert status.finished_at >= process.started_at


def test_streams_of_a_plain_command_go_to_the_log_and_its_input_is_empty(machine: Machine) -> None:
    outcome = machine.run("sh", "-c", "cat; echo out; echo err >&2; ls /proc/self/fd")

    assert outcome.output.splitlines() == ["out", "err", "0", "1", "2", "3"]


def test_log_is_appended_to(machine: Machine) -> None:
    spec = machine.build_spec("echo", "one")

    for _ in range(2):
        machine.wait(machine.do(machine.runner.start(spec)))

    assert spec.log.read_text() == "one\none\n"


def test_signals_are_as_a_new_process_has_them(machine: Machine) -> None:
    outcome = machine.run("cat", "/proc/self/status")

    masks = dict(line.split(":\t") for line in outcome.output.splitlines() if "Sig" in line)
    # The C library keeps signals 32 and 33 to itself; a parent may pass them on ignored.
    ours = ~(0b11 << 31)
    assert {name: int(masks[name], 16) & ours for name in ("SigBlk", "SigIgn", "SigCgt")} == {
        "SigBlk": 0,
        "SigIgn": 0,
        "SigCgt": 0,
    }


@pytest.mark.parametrize(
    "command", ["no-such-command", "/no/such/command", "/etc/hostname", "/tmp"]
)
def test_command_that_cannot_run_is_an_error_that_names_it(machine: Machine, command: str) -> None:
    with pytest.raises(StartError, match=command):
        machine.start(command)


def test_missing_folder_is_an_error_that_names_it(machine: Machine) -> None:
    spec = ProcessSpec(
        name="x",
        argv=("true",),
        env=BASE_ENV,
        cwd=Path("/no/such/folder"),
        log=machine.folder / "log",
        warm=False,
    )
    with pytest.raises(StartError, match="/no/such/folder"):
        machine.do(machine.runner.start(spec))


def test_python_program_finds_what_the_parent_imported(machine: Machine) -> None:
    program = "import sys; print('multiprocessing.pool' in sys.modules)"

    assert machine.python("-c", program).output == "True\n"
    assert machine.plain_python("-c", program).output == "False\n"


def test_large_program_is_passed_whole(machine: Machine) -> None:
    program = f"text = {'x' * 3_000_000!r}; print(len(text))"

    assert machine.python("-c", program).output == "3000000\n"


def test_descendants_are_gone_when_a_process_has_ended(machine: Machine) -> None:
    machine.python("-c", DAEMONISE)

    assert not is_alive(int(machine.read("daemon.pid")))


def test_background_child_of_a_shell_is_gone_when_the_shell_has_ended(machine: Machine) -> None:
    outcome = machine.run("sh", "-c", "sleep 600 & echo $!")

    assert not is_alive(int(outcome.output))


def test_kill_takes_descendants_in_other_sessions(machine: Machine) -> None:
    process, _ = machine.start(sys.executable, "-c", DAEMONISE + "time.sleep(600)", warm=True)
    machine.wait_until(lambda: machine.read("daemon.pid") != "")
    pid = int(machine.read("daemon.pid"))

    process.send_signal(signal.SIGKILL)
    status = machine.wait(process)

    assert status.code == 137
    assert not is_alive(pid)
    assert not is_alive(process.pid)


def test_termination_reaches_the_whole_group(machine: Machine) -> None:
    script = "sh -c 'trap \"echo inner; exit 0\" TERM; echo ready; while :; do sleep 0.01; done'; :"
    process, log = machine.start("sh", "-c", script)
    machine.wait_until(lambda: "ready" in log.read_text())

    process.send_signal(signal.SIGTERM)
    status = machine.wait(process)

    assert status.code == 143
    assert "inner" in log.read_text()


def test_program_may_handle_termination(machine: Machine) -> None:
    program = """
import signal, sys, time
def stop(*_):
    print('saved'); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print('ready')
while True: time.sleep(0.01)
"""
    process, log = machine.start(sys.executable, "-c", program, warm=True)
    machine.wait_until(lambda: "ready" in log.read_text())

    process.send_signal(signal.SIGTERM)
    status = machine.wait(process)

    assert status.code == 0
    assert log.read_text() == "ready\nsaved\n"


def test_orphans_are_reaped_while_a_process_runs(machine: Machine) -> None:
    program = """
import os, time
if os.fork() == 0:
    if os.fork() == 0:
        with open('orphan.pid', 'w') as file: file.write(str(os.getpid()))
    os._exit(0)
os.wait()
time.sleep(600)
"""
    process, _ = machine.start(sys.executable, "-c", program, warm=True)
    machine.wait_until(lambda: machine.read("orphan.pid") != "")

    machine.wait_until(lambda: not Path("/proc", machine.read("orphan.pid")).exists())

    process.send_signal(signal.SIGKILL)
    machine.wait(process)


def test_lost_supervisor_ends_the_process_and_its_session(machine: Machine) -> None:
    process, _ = machine.start("sh", "-c", "sleep 600 & sleep 600")
    machine.wait_until(lambda: _children(process.pid) != [])
    children = _children(process.pid)

    os.kill(_parent(process.pid), signal.SIGKILL)
    status = machine.wait(process)

    assert status.lost
    machine.wait_until(lambda: not any(map(is_alive, [process.pid, *children])))


def test_processes_outlive_the_warm_parent_and_new_ones_find_another(machine: Machine) -> None:
    process, _ = machine.start("sleep", "600")
    old = machine.runner.warm_parent_pid
    assert old is not None

    os.kill(old, signal.SIGKILL)
    machine.wait_until(lambda: machine.runner.warm_parent_pid not in (old, None))

    assert machine.run("echo", "again").output == "again\n"
    assert process.exit_status is None
    process.send_signal(signal.SIGTERM)
    assert machine.wait(process).code == 143


def test_runner_ends_what_it_started(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, int | None]:
        async with ProcessRunner(WarmConfig(layers=()), env=BASE_ENV) as runner:
            process = await runner.start(
                ProcessSpec(
                    name="sleep",
                    argv=("sleep", "600"),
                    env=BASE_ENV,
                    cwd=tmp_path,
                    log=tmp_path / "log",
                    warm=False,
                )
            )
            return process.pid, runner.warm_parent_pid

    pid, parent = asyncio.run(scenario())

    assert not is_alive(pid)
    assert parent is not None
    assert not is_alive(parent)


def test_nothing_outlives_a_killed_daemon(tmp_path: Path) -> None:
    daemon = tmp_path / "daemon.py"
    daemon.write_text(
        textwrap.dedent(
            f"""
            import asyncio, sys
            from pathlib import Path
            from kubeloop.local.kubelet.process import ProcessRunner, ProcessSpec
            from kubeloop.local.kubelet.warm_parent import WarmConfig
            folder = Path({str(tmp_path)!r})
            async def main():
                config = WarmConfig(layers=(("json",),))
                async with ProcessRunner(config, env={BASE_ENV!r}) as runner:
                    await runner.wait_until_warm()
                    for name, argv in (
                        ("one", (sys.executable, "-c", {DAEMONISE + "time.sleep(600)"!r})),
                        ("two", ("sh", "-c", "sleep 600 & echo $! > daemon.pid; sleep 600")),
                    ):
                        (folder / name).mkdir()
                        process = await runner.start(ProcessSpec(
                            name=name, argv=argv, env={BASE_ENV!r}, cwd=folder / name,
                            log=folder / f"{{name}}.log", warm=argv[0] == sys.executable))
                        (folder / f"{{name}}.pid").write_text(str(process.pid))
                    (folder / "parent.pid").write_text(str(runner.warm_parent_pid))
                    await asyncio.sleep(600)
            asyncio.run(main())
            """
        )
    )
    files = ["one.pid", "two.pid", "parent.pid", "one/daemon.pid", "two/daemon.pid"]

    def read(name: str) -> str:
        path = tmp_path / name
        return path.read_text() if path.exists() else ""

    with subprocess.Popen([sys.executable, str(daemon)], cwd=tmp_path) as process:
        asyncio.run(wait_until(lambda: all(map(read, files)), timeout_seconds=30))
        pids = [int(read(name)) for name in files]
        assert all(map(is_alive, pids))

        process.kill()

    asyncio.run(wait_until(lambda: not any(map(is_alive, pids)), timeout_seconds=5))


def test_changed_code_is_imported_anew(tmp_path: Path) -> None:
    module = tmp_path / "library" / "changing.py"
    module.parent.mkdir()
    module.write_text("value = 1")
    env = BASE_ENV | {"PYTHONPATH": str(module.parent), "PYTHONDONTWRITEBYTECODE": "1"}

    async def read_value(runner: ProcessRunner) -> str:
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        program = "import sys; print('changing' in sys.modules, __import__('changing').value)"
        spec = ProcessSpec(
            name="x",
            argv=(sys.executable, "-c", program),
            env=env,
            cwd=tmp_path,
            log=log,
            warm=True,
        )
        await (await runner.start(spec)).wait()
        return log.read_text()

    async def scenario() -> None:
        async with (
            asyncio.timeout(60),
            ProcessRunner(WarmConfig(layers=(("changing",),)), env=env) as runner,
        ):
            await runner.wait_until_warm()
            assert await read_value(runner) == "True 1\n"
            module.write_text("value = 22")
            assert await read_value(runner) == "False 22\n"
            while not (await read_value(runner)).startswith("True"):
                await runner.wait_until_warm()
            assert await read_value(runner) == "True 22\n"

    asyncio.run(scenario())


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if _parent(int(entry.name)) == pid:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
