import os
import signal

import pytest

from kubeloop.components.steps import Step, open_step
from kubeloop.errors import InputError, PermanentError

RUN = "0f3c9a54-2b1e-4c57-9a53-0d9e3c2f7b11"
OTHER = "aaaaaaaa-2b1e-4c57-9a53-0d9e3c2f7b11"


@pytest.mark.parametrize(
    "root", ["/home/u/.kubeloop/artifacts", "minio://mlpipeline/v2/artifacts", "s3://bucket"]
)
def test_step_is_read_from_a_planned_output_uri(root: str) -> None:
    step = Step.from_output_uri(f"{root}/image-classification/{RUN}/train-model/{OTHER}/model")
    assert step == Step(
        pipeline_root=root, pipeline="image-classification", run_id=RUN, task="train-model"
    )


def test_state_folder_named_like_a_uuid_is_not_taken_for_the_run() -> None:
    step = Step.from_output_uri(f"/tmp/x/{OTHER}/p/{RUN}/train-model/{OTHER}/model")
    assert step.run_id == RUN


def test_uri_outside_of_a_run_is_refused_with_the_expected_form() -> None:
    with pytest.raises(InputError, match="holds no run id"):
        Step.from_output_uri("/tmp/model")


def test_object_names_repeat_for_equal_inputs_and_differ_otherwise() -> None:
    step = Step(pipeline_root="/r", pipeline="p", run_id=RUN, task="train-model")
    other_run = Step(pipeline_root="/r", pipeline="p", run_id=OTHER, task="train-model")
    name = step.object_name({"a": 1, "b": 2})
    assert name == step.object_name({"b": 2, "a": 1})
    assert name.startswith("train-model-")
    assert len({name, step.object_name({"a": 2}), other_run.object_name({"a": 1, "b": 2})}) == 3


@pytest.mark.parametrize("task", ["for-loop-1-" + "x" * 60, "3-things", "Über_Task"])
def test_object_names_are_dns_labels_that_katib_accepts(task: str) -> None:
    name = Step(pipeline_root="/r", pipeline="p", run_id=RUN, task=task).object_name({})
    assert len(name) <= 40
    assert name[0].isalpha()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_sigterm_unwinds_a_step_so_that_it_cleans_up() -> None:
    cleaned = []
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with open_step(f"/r/p/{RUN}/t/{OTHER}/o"):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.sigtimedwait([], 5)
            except SystemExit:
                cleaned.append(True)
                raise

    with pytest.raises(SystemExit) as exit_info:
        work()
    assert exit_info.value.code == 143
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_our_own_error_ends_a_step_with_its_sentence_last_and_no_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_info, open_step(f"/r/p/{RUN}/t/{OTHER}/o"):
        raise PermanentError("The job failed: out of memory.\nits log:\nepoch=1")
    assert exit_info.value.code == 1
    shown = capsys.readouterr().err
    assert shown == "its log:\nepoch=1\nError: The job failed: out of memory.\n"
