from kubeloop.local.pipelines.engine.executor_log import ExecutorFilter
from kubeloop.local.pipelines.engine.pods import PodEnd, describe_end

LOG = """[KFP Executor 2026-03-01 12:00:00,000 INFO]: Looking for component `train`
[KFP Executor 2026-03-01 12:00:00,001 INFO]: Got executor_input:
{
    "inputs": {
        "parameterValues": {}
    }
}
epoch=1

{"a": 1}
Error: No data.
"""


def test_only_what_the_component_printed_is_shown() -> None:
    lines = list(ExecutorFilter().filter(LOG.splitlines()))
    assert lines == ["epoch=1", '{"a": 1}', "Error: No data."]


def test_log_may_come_in_pieces() -> None:
    lines, quiet = LOG.splitlines(), ExecutorFilter()
    pieces = [lines[:4], lines[4:8], lines[8:]]
    shown = [line for piece in pieces for line in quiet.filter(piece)]
    assert shown == ["epoch=1", '{"a": 1}', "Error: No data."]


def test_failure_of_a_step_quotes_the_component_and_not_the_executor() -> None:
    error = describe_end("train", PodEnd(succeeded=False, exit_code=1), log=LOG)
    assert error.splitlines() == [
        "Task 'train' failed with exit code 1. Its last lines:",
        "epoch=1",
        '{"a": 1}',
        "Error: No data.",
    ]
