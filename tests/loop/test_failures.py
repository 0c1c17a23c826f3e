"""What goes wrong ends with a sentence that helps, and nothing is left behind or lost."""

import json
import shutil
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kubeloop.local.state import StateFolder
from kubeloop.pipelines.packages import COMPILED
from kubeloop.testing.command_line import wait_for
from kubeloop.testing.image_folders import write_image_folder
from kubeloop.testing.laptop import Laptop

pytestmark = [pytest.mark.loop, pytest.mark.pinned]
PIPELINE = COMPILED / "image_classification.yaml"


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laptop]:
    """One control plane for all cases: each shows that the state is usable after those before."""
    with Laptop(tmp_path_factory.mktemp("failures")) as laptop:
        laptop.up()
        yield laptop


def write_corrupt_images(root: Path) -> Path:
    """36 images, two of which nobody can read."""
    write_image_folder(root, dict.fromkeys("abc", 12))
    (root / "a" / "000.png").write_bytes(b"no image")
    truncated = root / "b" / "003.png"
    truncated.write_bytes(truncated.read_bytes()[:60])
    return root


def test_missing_source_folder_is_named(laptop: Laptop) -> None:
    source = laptop.folder / "nowhere"
    message, run = laptop.fail("ingest", source=str(source))
    assert f"The source '{source}' does not exist; check the path." in message
    assert run["failed_task"] == "ingest-dataset"


def test_empty_source_folder_says_what_to_put_there(laptop: Laptop) -> None:
    source = laptop.folder / "empty"
    source.mkdir()
    done = laptop.command.call("run", str(PIPELINE), "-p", f"dataset_source={source}")
    assert done.code == 1
    assert "in task ingest-dataset" in done.err
    assert f"The source '{source}' is empty; put images in one folder a class." in done.err
    assert "train-model: not run" in done.out


def test_failed_task_is_named_in_the_list_of_runs(laptop: Laptop) -> None:
    _, run = laptop.fail("ingest", source="/nowhere")
    table = laptop.command.call("runs").out.splitlines()
    (row,) = (line for line in table if run["run_id"] in line)
    assert row.split()[-1] == "ingest-dataset"
    listed = laptop.command.call("runs", "--output", "json").json
    assert next(r for r in listed if r["run_id"] == run["run_id"])["failed_task"] == (
        "ingest-dataset"
    )


def test_corrupt_images_are_counted_named_and_refused(laptop: Laptop) -> None:
    source = write_corrupt_images(laptop.folder / "corrupt")
    message, run = laptop.fail("ingest", source=str(source), max_corrupt_fraction=0.05)
    assert f"2 of 36 examples in '{source}' cannot be read" in message
    assert "a/000.png: not an image" in message
    assert "b/003.png: damaged image" in message
    assert "repair or remove them, or allow max_corrupt_fraction 0.0556" in message
    assert run["failed_task"] == "ingest-dataset"


def test_few_corrupt_images_are_left_out(laptop: Laptop) -> None:
    source = write_corrupt_images(laptop.folder / "tolerated")
    done, _ = laptop.run("ingest", source=str(source), max_corrupt_fraction=0.06)
    assert done.code == 0, done
    assert "34 examples" in done.out


def test_class_with_one_image_is_named(laptop: Laptop) -> None:
    source = write_image_folder(laptop.folder / "lonely", {"a": 12, "b": 12, "c": 1})
    message, run = laptop.fail("ingest", source=str(source))
    assert "Class 'c' has 1 distinct example; at least 2 are needed" in message
    assert "add examples or remove the class" in message
    assert run["failed_task"] == "ingest-dataset"


def test_wrong_parameters_are_refused_before_a_run_exists(laptop: Laptop) -> None:
    num_runs = len(laptop.command.call("runs", "-o", "json").json)
    for assignment, message in (
        ("epoch=5", "Parameter 'epoch' of pipeline 'image-classification' does not exist; do you"),
        ("epochs=many", "takes a whole number (NUMBER_INTEGER), not 'many' (str)"),
        ("search_space=[1]", "takes an object (STRUCT), not [1] (list)"),
    ):
        arguments = ["-p", f"dataset_source={laptop.images}", "-p", assignment]
        done = laptop.command.call("run", str(PIPELINE), *arguments)
        assert done.code == 2
        assert message in done.err
    assert len(laptop.command.call("runs", "-o", "json").json) == num_runs


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epoch": 5}, "Parameter 'epoch' of pipeline 'image-classification' does not exist"),
        ({"epochs": "many"}, "takes a whole number (NUMBER_INTEGER), not 'many' (str)"),
        ({"search_space": "x"}, "takes an object (STRUCT), not 'x' (str)"),
    ],
)
def test_wrong_parameters_are_refused_by_the_api_too(
    laptop: Laptop, parameters: dict[str, Any], message: str
) -> None:
    import kfp
    from kfp_server_api import ApiException

    plane = json.loads((laptop.command.state / "control-plane.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # kfp's own
        client = kfp.Client(host=plane["kfp_url"], existing_token=plane["token"])
    arguments = {"dataset_source": str(laptop.images), **parameters}
    with pytest.raises(ApiException) as refused:
        client.create_run_from_pipeline_package(str(PIPELINE), arguments=arguments)
    assert refused.value.status == 400
    assert message in json.loads(refused.value.body)["message"]


def test_program_that_raises_is_quoted_with_its_rank(laptop: Laptop) -> None:
    message, run = laptop.fail("program", code="print('epoch=1')\nraise ValueError('no column')")
    assert "PyTorchJob default/run-program-" in message
    assert "rank 0, pod run-program-" in message
    assert "exited with code 1: ValueError: no column" in message
    assert run["failed_task"] == "run-program"


def test_program_that_is_killed_again_and_again_is_given_up(laptop: Laptop) -> None:
    code = "import os\nprint('epoch=1')\nos.kill(os.getpid(), 9)"
    message, run = laptop.fail("program", code=code, max_restarts=1)
    assert "was restarted more than 1 times and was deleted" in message
    assert "exited with code 137" in message
    assert run["failed_task"] == "run-program"
    assert laptop.list_made(run["run_id"]) == []


def test_a_metric_that_the_program_does_not_print_is_refused_before_a_trial(
    laptop: Laptop,
) -> None:
    source = str(laptop.images)
    message, run = laptop.fail("tune", source=source, objective_metric="val_f1")
    assert "Metric 'val_f1' is not among what the image program prints: epoch, " in message
    assert run["failed_task"] == "tune-hyperparameters"
    assert laptop.list_made(run["run_id"]) == []


def test_trials_that_raise_are_quoted(laptop: Laptop) -> None:
    source, wrong = str(laptop.images), {"architecture": "resnet19"}
    message, run = laptop.fail("tune", source=source, hyperparameters=wrong)
    assert "Experiment default/tune-hyperparameters-" in message
    assert "Unknown architecture 'resnet19'; give one of torchvision's" in message
    assert "such as resnet18" in message
    assert run["failed_task"] == "tune-hyperparameters"


def test_broken_model_package_fails_its_endpoint_and_stays_for_a_look(laptop: Laptop) -> None:
    model = laptop.folder / "broken"
    model.mkdir()
    (model / "model.json").write_text("{")
    message, run = laptop.fail("deploy", model_uri=str(model), name="broken")
    assert "Failed to deploy InferenceService default/broken" in message
    assert "model.json is not a model package's manifest" in message
    assert run["failed_task"] == "deploy-model"
    details = next(t["error"] for t in run["tasks"] if t["name"] == "deploy-model")
    assert "kubectl -n default delete inferenceservice broken" in details
    shown = laptop.command.call("endpoints", "broken").out
    assert "False" in shown
    assert "model.json is not a model package's manifest" in shown
    laptop.delete_endpoint("broken")


def test_endpoint_that_never_becomes_ready_says_what_it_waits_for(laptop: Laptop) -> None:
    message, run = laptop.fail(
        "deploy", model_uri="/models/any", name="large", memory="900Ti", timeout_seconds=1.0
    )
    assert "Failed to deploy InferenceService default/large: not ready after 1 s" in message
    assert "Insufficient memory" in message
    assert run["failed_task"] == "deploy-model"
    called = laptop.command.call("predict", "large", str(laptop.images / "a" / "000.png"))
    assert called.code == 1
    assert "Endpoint large is not ready" in called.err
    assert "kubeloop endpoints large" in called.err


def test_second_control_plane_on_the_same_state_is_refused(laptop: Laptop) -> None:
    done = laptop.command.run("up")
    assert done.code == 1
    assert f"A control plane already runs on {laptop.command.state}" in done.err
    assert "kubeloop down" in done.err
    laptop.check_use()


def test_taken_port_is_named_and_the_state_is_usable_with_another(laptop: Laptop) -> None:
    laptop.down()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = laptop.command.run(
            "up", "--api-port", "0", "--kfp-port", "0", "--gateway-port", port
        )
    assert done.code == 1
    assert f"127.0.0.1:{port} for the gateway" in done.err
    assert "--gateway-port" in done.err
    assert laptop.command.processes() == []
    laptop.up()
    laptop.check_use()


def test_a_control_plane_whose_folder_is_deleted_ends_and_says_so(tmp_path: Path) -> None:
    with Laptop(tmp_path) as laptop:
        folder = StateFolder(laptop.command.state)
        ports = ("--api-port", "0", "--kfp-port", "0", "--gateway-port", "0")
        command = laptop.begin("up", "--foreground", *ports)
        wait_for(lambda: folder.read_endpoints() is not None)
        shutil.rmtree(folder.root)
        done = command.wait()
        assert done.code == 1
        assert f"Error: State folder {folder.root} was deleted" in done.err
        assert "Traceback" not in done.err
        assert laptop.command.processes() == []
