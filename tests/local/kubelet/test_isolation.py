"""What one pod does to its interpreter is never seen by the next one from the same warm parent."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from kubeloop.local.kubelet.images import ImagesConfig
from kubeloop.local.kubelet.kubelet import KubeletConfig
from kubeloop.local.kubelet.warm_parent import WarmConfig
from kubeloop.testing.kubelet import Cluster, phase, play
from kubeloop.testing.processes import Machine

REPORT = """
import builtins, json, locale, logging, os, random, resource, signal, sys, tempfile, threading
import warnings

umask = os.umask(0)
print(json.dumps({
    "executable": sys.executable,
    "environment": dict(os.environ),
    "working directory": os.getcwd(),
    "open files": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
    "threads": [threading.active_count(), len(os.listdir("/proc/self/task"))],
    "module state": [hasattr(json, "leak"), hasattr(builtins, "leak"), "leaked" in sys.modules],
    "import path": sys.path,
    "signal handlers": [str(signal.getsignal(number)) for number in sorted(signal.Signals)],
    "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "log": [len(logging.root.handlers), logging.root.level],
    "warnings": len(warnings.filters),
    "limits": [resource.getrlimit(resource.RLIMIT_NOFILE), os.nice(0), umask],
    "temporary folder": tempfile.gettempdir(),
    "recursion": sys.getrecursionlimit(),
    "locale": locale.setlocale(locale.LC_ALL),
    "exit handlers": __import__("atexit")._ncallbacks(),
    "random": random.random(),
}))
"""
LEAK = """
import atexit, builtins, json, logging, os, random, resource, signal, sys, tempfile, threading
import time, types, warnings

os.environ["LEAK"] = "leak"
os.chdir("/")
os.umask(0o077)
kept = [open("/dev/null", "w") for _ in range(5)]
for file in kept:
    os.set_inheritable(file.fileno(), True)
random.seed(1)
threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
json.leak = builtins.leak = sys.modules["leaked"] = types.ModuleType("leaked")
sys.path.append("/leak")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
logging.basicConfig(level=logging.DEBUG)
warnings.simplefilter("error")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
os.nice(1)
tempfile.tempdir = "/leak"
sys.setrecursionlimit(5000)
atexit.register(print)
"""


def report(machine: Machine) -> dict[str, object]:
    outcome = machine.python("-c", REPORT)
    assert outcome.code == 0, outcome.output
    found: dict[str, object] = json.loads(outcome.output)
    return found


def test_nothing_leaks_into_the_next_process(machine: Machine) -> None:
    before = report(machine)
    leaking = machine.python("-c", LEAK)
    assert leaking.code == 0, leaking.output

    after = report(machine)

    assert before.pop("random") != after.pop("random")
    assert after == before


def test_a_process_beside_one_that_leaks_sees_nothing_of_it(machine: Machine) -> None:
    before = report(machine)
    done = machine.folder / "done"
    program = f"{LEAK}\nopen({str(done)!r}, 'w').close()\ntime.sleep(600)"
    process, _ = machine.start(str(before["executable"]), "-c", program, warm=True)
    machine.wait_until(done.exists)

    after = report(machine)

    process.send_signal(signal.SIGKILL)
    machine.wait(process)
    assert before.pop("random") != after.pop("random")
    assert after == before


def test_pod_of_another_environment_or_of_no_python_is_started_plainly(tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    make = [sys.executable, "-m", "venv", "--without-pip", str(environment)]
    subprocess.run(make, check=True)  # the image's environment
    images = ImagesConfig(pythons={"other/*": environment / "bin" / "python"})
    config = KubeletConfig(images=images, warm=WarmConfig(layers=(("concurrent.futures",),)))
    program = "import sys; print(sys.prefix, 'concurrent' in sys.modules, len(sys.orig_argv))"

    async def scenario(cluster: Cluster) -> None:
        await cluster.kubelet.processes.wait_until_warm()
        for name, image, command in (
            ("own", "python:3.11", ["python", "-c", program]),
            ("other", "other/image:1", ["python", "-c", program]),
            ("shell", "python:3.11", ["sh", "-c", f'exec python -c "{program}"']),
        ):
            container = {"name": "main", "image": image, "command": command}
            pod = await cluster.run(name, containers=[container])
            assert phase(pod) == "Succeeded", await cluster.log(name)

        assert (await cluster.log("own")).split()[1:] == ["True", "3"]
        assert (await cluster.log("other")).split() == [str(environment), "False", "3"]
        assert (await cluster.log("shell")).split()[1:] == ["False", "3"]

    play(tmp_path / "state", scenario, config=config)
