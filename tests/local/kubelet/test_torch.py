"""Forks of a parent that has imported torch, NumPy and the Kubeflow SDKs."""

from __future__ import annotations

import json
import os
import sys

import pytest

from kubeloop.testing.processes import Machine

SEEDS = """
import random, numpy, torch
print(random.random(), numpy.random.rand(), torch.rand(1).item(), torch.initial_seed())
"""

SEED = "random.seed(1); numpy.random.seed(1); torch.manual_seed(1)"

RANK = """
import os, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group('gloo')
torch.manual_seed(dist.get_rank())
model = DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(20):
    optimizer.zero_grad()
    model(torch.randn(8, 4)).pow(2).mean().backward()
    optimizer.step()
print('rank', dist.get_rank(), 'sum', round(sum(p.sum().item() for p in model.parameters()), 6))
dist.destroy_process_group()
"""

COMPONENT = """
from kfp.dsl import *
def add(a: int, b: int) -> int:
    return a + b
"""


def test_default_modules_leave_the_parent_with_one_thread(torch_machine: Machine) -> None:
    announcements = torch_machine.runner.announcements

    assert len(announcements) == 3
    assert [announcement["num_threads"] for announcement in announcements] == [1, 1, 1]


def test_default_modules_are_there(torch_machine: Machine) -> None:
    program = "import sys; print({'kfp', 'torch', 'kserve', 'torch.distributed'} - {*sys.modules})"

    assert torch_machine.python("-c", program).output == "set()\n"


@pytest.mark.pinned
def test_random_numbers_differ_between_processes(torch_machine: Machine) -> None:
    first, second = (torch_machine.python("-c", SEEDS).output.split() for _ in range(2))

    assert len(first) == 4
    assert not set(first) & set(second)


@pytest.mark.pinned
def test_seeded_random_numbers_are_those_of_a_plain_interpreter(torch_machine: Machine) -> None:
    program = (
        "import random, numpy, torch\nrandom.seed(1); numpy.random.seed(1); torch.manual_seed(1)"
    )
    program += SEEDS

    assert torch_machine.python("-c", program) == torch_machine.plain_python("-c", program)


@pytest.mark.pinned
@pytest.mark.parametrize("env", [{}, {"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "3"}])
def test_number_of_threads_is_that_of_a_plain_interpreter(
    torch_machine: Machine, env: dict[str, str]
) -> None:
    program = """
import threading, torch
print(torch.get_num_threads(), torch.get_num_interop_threads())
thread = threading.Thread(target=lambda: print(torch.get_num_threads()))
thread.start(); thread.join()
"""
    forked = torch_machine.python("-c", program, **env)

    assert forked == torch_machine.plain_python("-c", program, **env)


@pytest.mark.pinned
@pytest.mark.parametrize("num_threads", ["1", "2"])
def test_numpy_computes_with_as_many_threads_as_asked_for(
    torch_machine: Machine, num_threads: str
) -> None:
    program = """
import os, numpy
a = numpy.ones((600, 600)); a @ a
print(len(os.listdir('/proc/self/task')))
"""
    forked = torch_machine.python("-c", program, OMP_NUM_THREADS=num_threads)

    assert forked.output == f"{num_threads}\n"


@pytest.mark.pinned
def test_variable_read_by_an_imported_module_is_honoured(torch_machine: Machine) -> None:
    program = "import torch._dynamo.config as c, sys; print(c.disable, 'kserve' in sys.modules)"

    outcome = torch_machine.python("-c", program, TORCH_COMPILE_DISABLE="1")

    assert outcome.output == "True False\n"


def test_kubeconfig_is_that_of_the_process(torch_machine: Machine) -> None:
    config = torch_machine.write(
        "kubeconfig",
        """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:4"}}]
users: [{name: me, user: {token: abc}}]
""",
    )
    program = """
from kubernetes import client, config
config.load_kube_config()
print(client.Configuration.get_default_copy().host)
"""
    outcome = torch_machine.python("-c", program, KUBECONFIG=str(config))

    assert outcome.output == "http://127.0.0.1:4\n"


@pytest.mark.pinned
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_data_loader_workers_work(torch_machine: Machine, method: str) -> None:
    program = f"""
import torch
from torch.utils.data import DataLoader, Dataset
class Squares(Dataset):
    def __len__(self): return 8
    def __getitem__(self, index): return torch.tensor(index ** 2)
if __name__ == '__main__':
    loader = DataLoader(
        Squares(), batch_size=4, num_workers=2, multiprocessing_context={method!r},
        persistent_workers=True)
    for _ in range(2):
        print([batch.tolist() for batch in loader])
"""
    torch_machine.write("program.py", program)

    outcome = torch_machine.python("program.py")

    assert outcome.output == "[[0, 1, 4, 9], [16, 25, 36, 49]]\n" * 2
    assert outcome.code == 0


@pytest.mark.pinned
def test_two_forked_ranks_train_together(torch_machine: Machine) -> None:
    torch_machine.write("rank.py", RANK)
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_port()), "WORLD_SIZE": "2"}

    ranks = [
        torch_machine.start(sys.executable, "rank.py", warm=True, RANK=str(rank), **env)
        for rank in range(2)
    ]

    assert [torch_machine.wait(process).code for process, _ in ranks] == [0, 0]
    sums = {log.read_text().split("sum")[1] for _, log in ranks}
    assert len(sums) == 1


@pytest.mark.pinned
def test_groups_that_end_right_after_the_last_step_do_not_hang(torch_machine: Machine) -> None:
    body = "\n".join(f"    {line}" for line in RANK.splitlines())
    torch_machine.write("rank.py", f"def main():\n{body}\nmain()")

    for _ in range(5):
        env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_port()), "WORLD_SIZE": "2"}
        ranks = [
            torch_machine.start(sys.executable, "rank.py", warm=True, RANK=str(rank), **env)
            for rank in range(2)
        ]
        assert [torch_machine.wait(process).code for process, _ in ranks] == [0, 0]


@pytest.mark.pinned
def test_torchrun_starts_its_ranks(torch_machine: Machine) -> None:
    torch_machine.write(
        "rank.py", "import os; print(f\"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}\")"
    )

    outcome = torch_machine.python(
        *("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "rank.py"),
        OMP_NUM_THREADS="1",
    )

    assert outcome.code == 0, outcome.output
    assert sorted(outcome.output.splitlines()) == ["rank 0 of 2", "rank 1 of 2"]


def test_component_runs_in_the_kfp_executor(torch_machine: Machine) -> None:
    torch_machine.write("component.py", COMPONENT)
    executor_input = {
        "inputs": {"parameterValues": {"a": 1, "b": 2}},
        "outputs": {
            "parameters": {"Output": {"outputFile": str(torch_machine.folder / "output")}},
            "outputFile": str(torch_machine.folder / "outputs.json"),
        },
    }

    outcome = torch_machine.python(
        *("-m", "kfp.dsl.executor_main", "--component_module_path", "component.py"),
        *("--function_to_execute", "add", "--executor_input", json.dumps(executor_input)),
        _KFP_RUNTIME="true",
    )

    assert outcome.code == 0, outcome.output
    assert json.loads(torch_machine.read("outputs.json")) == {"parameterValues": {"Output": 3}}
    assert "Warning" not in outcome.output


def _port() -> int:
    return 20000 + os.getpid() % 10000
