"""A pipeline is cut down to what comes before a task, and a probe takes the task's place."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return"

from pathlib import Path

import pytest
from kfp import compiler, dsl

from kubeloop.errors import InputError
from kubeloop.pipelines.packages import PipelinePackage, read_package
from kubeloop.pipelines.task_probe import PROBE_OUTPUT, build_probe, find_task

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def add(a: int, b: int = 1) -> int:
    return a + b


@dsl.pipeline(name="inner")
def inner(x: int) -> int:
    first = add(a=x)
    add(a=first.output, b=10)
    return first.output


@dsl.pipeline(name="outer")
def outer(n: int = 1) -> int:
    before = inner(x=n)
    beside = add(a=n).set_display_name("Beside")
    with dsl.If(before.output > 0):
        add(a=before.output).set_retry(3)
    return beside.output


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> PipelinePackage:
    path = tmp_path_factory.mktemp("compiled") / "outer.yaml"
    compiler.Compiler().compile(outer, str(path))
    return read_package(path)


def test_only_what_the_task_waits_for_is_kept(package: PipelinePackage) -> None:
    probe = build_probe(package, find_task(package, "condition-1.add-2"))
    root = probe.spec["root"]
    assert set(root["dag"]["tasks"]) == {"inner", "condition-1"}
    assert "outputDefinitions" not in root
    condition = probe.spec["components"][
        root["dag"]["tasks"]["condition-1"]["componentRef"]["name"]
    ]
    task = condition["dag"]["tasks"]["add-2"]
    target = probe.spec["components"][task["componentRef"]["name"]]
    assert set(target["outputDefinitions"]["parameters"]) == {PROBE_OUTPUT}
    assert "retryPolicy" not in task
    assert (
        task["inputs"]
        == (package.spec["components"]["comp-condition-1"]["dag"]["tasks"]["add-2"]["inputs"])
    )


def test_a_component_that_others_need_too_stays_whole(package: PipelinePackage) -> None:
    probe = build_probe(package, find_task(package, "inner.add"))
    assert probe.spec["components"]["comp-inner"] == package.spec["components"]["comp-inner"]
    (task,) = probe.spec["root"]["dag"]["tasks"].values()
    own = probe.spec["components"][task["componentRef"]["name"]]
    assert set(own["dag"]["tasks"]) == {"add"}


def test_the_pipeline_itself_is_left_alone(package: PipelinePackage, tmp_path: Path) -> None:
    path = tmp_path / "again.yaml"
    compiler.Compiler().compile(outer, str(path))
    build_probe(package, find_task(package, "inner.add-2"))
    assert package.spec == read_package(path).spec


def test_a_name_that_several_tasks_have_asks_for_the_path(package: PipelinePackage) -> None:
    with pytest.raises(InputError, match=r"2 tasks 'add-2'; give one of condition-1.add-2, inner"):
        find_task(package, "add-2")
    assert find_task(package, "add").path == ("add",)


def test_an_unknown_task_is_told_those_that_there_are(package: PipelinePackage) -> None:
    with pytest.raises(InputError, match=r"has no task 'sub' .*inner\.add-2"):
        find_task(package, "sub")
    with pytest.raises(InputError, match="that runs something"):
        find_task(package, "condition-1")
