"""Compiled pipelines become typed values, or are refused with the fault by name."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import copy
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl

from kubeloop.errors import InputError
from kubeloop.local.pipelines.spec import ir
from kubeloop.local.pipelines.spec.documents import (
    PipelineDocument,
    document_from_json,
    parse_documents,
)
from kubeloop.local.pipelines.spec.parsing import parse_pipeline
from kubeloop.local.pipelines.spec.values import ParameterType

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def same(value: int, note: str = "n") -> int:
    return value


@dsl.pipeline(name="two", description="Two steps.")
def two(n: int = 3):
    first = same(value=n)
    second = same(value=first.output)
    second.set_retry(2, backoff_duration="3s", backoff_factor=1.5)
    second.set_display_name("Second")
    second.set_memory_request("2G").set_cpu_limit("500m")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "two.yaml"
    compiler.Compiler().compile(two, str(path))
    spec: dict[str, Any] = yaml.safe_load(path.read_text())
    return spec


def _parse(spec: dict[str, Any]) -> ir.Pipeline:
    return parse_pipeline(PipelineDocument(spec=spec))


def test_a_compiled_pipeline_is_read(compiled: dict[str, Any]) -> None:
    pipeline = _parse(compiled)
    assert (pipeline.name, pipeline.description) == ("two", "Two steps.")
    n = pipeline.root.input_parameters["n"]
    assert (n.type, n.default, n.is_required) == (ParameterType.NUMBER_INTEGER, 3, False)
    assert isinstance(n.default, int)
    first, second = pipeline.dag.tasks.values()
    assert first.parameters["value"].source == ir.ComponentInput(name="n")
    assert second.parameters["value"].source == ir.TaskOutput(task="same", key="Output")
    assert (second.upstream, second.display_name) == (("same",), "Second")
    assert second.retry.max_retries == 2
    assert [second.retry.delay_seconds(index) for index in (0, 1)] == [3.0, 4.5]
    container = pipeline.components[second.component].executor
    assert isinstance(container, ir.ContainerSpec)
    assert container.resources.requests == {"memory": "2G"}
    assert container.resources.limits == {"cpu": "500m"}


def test_tasks_are_ordered_after_their_upstream(compiled: dict[str, Any]) -> None:
    spec = copy.deepcopy(compiled)
    tasks = spec["root"]["dag"]["tasks"]
    spec["root"]["dag"]["tasks"] = dict(reversed(tasks.items()))
    assert list(_parse(spec).dag.tasks) == ["same", "same-2"]


def test_the_longest_delay_between_retries_is_bounded() -> None:
    retry = ir.RetryPolicy(max_retries=9, backoff_seconds=60, backoff_max_seconds=100)
    assert retry.delay_seconds(5) == 100


def _without_name(spec: dict[str, Any]) -> None:
    del spec["pipelineInfo"]["name"]


def _without_root(spec: dict[str, Any]) -> None:
    del spec["root"]["dag"]


def _with_circle(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["tasks"]["same"]["dependentTasks"] = ["same-2"]


def _with_unknown_component(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["tasks"]["same"]["componentRef"]["name"] = "comp-other"


def _with_unknown_producer(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["tasks"]["same-2"]["dependentTasks"] = ["nobody"]


def _with_unknown_output(spec: dict[str, Any]) -> None:
    source = spec["root"]["dag"]["tasks"]["same-2"]["inputs"]["parameters"]["value"]
    source["taskOutputParameter"]["outputParameterKey"] = "Other"


def _without_input(spec: dict[str, Any]) -> None:
    del spec["root"]["dag"]["tasks"]["same"]["inputs"]


def _with_unknown_root_input(spec: dict[str, Any]) -> None:
    inputs = spec["root"]["dag"]["tasks"]["same"]["inputs"]
    inputs["parameters"]["value"] = {"componentInputParameter": "m"}


def _without_executor(spec: dict[str, Any]) -> None:
    del spec["deploymentSpec"]["executors"]["exec-same"]


def _with_cloud_executor(spec: dict[str, Any]) -> None:
    spec["deploymentSpec"]["executors"]["exec-same"] = {"customJob": {}}


def _with_unknown_type(spec: dict[str, Any]) -> None:
    spec["root"]["inputDefinitions"]["parameters"]["n"]["parameterType"] = "COMPLEX"


def _with_text_for_tasks(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["tasks"] = "none"


def _with_recursion(spec: dict[str, Any]) -> None:
    spec["components"]["comp-same"] = {
        "dag": {"tasks": {"again": {"componentRef": {"name": "comp-same"}}}},
    }


def _with_bad_delay(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["tasks"]["same-2"]["retryPolicy"]["backoffDuration"] = "soon"


@pytest.mark.parametrize(
    ("break_it", "fragments"),
    [
        (_without_name, ["has no name"]),
        (_without_root, ["root", "executorLabel or a dag"]),
        (_with_circle, ["circle", "'same'", "'same-2'"]),
        (_with_unknown_component, ["'same'", "'comp-other'", "'comp-same'"]),
        (_with_unknown_producer, ["'same-2'", "'nobody'"]),
        (_with_unknown_output, ["'value'", "'Other'", "'same'"]),
        (_without_input, ["'same'", "input 'value'", "requires"]),
        (_with_unknown_root_input, ["root.dag.tasks.same", "'m'"]),
        (_without_executor, ["'exec-same'", "components.comp-same"]),
        (_with_cloud_executor, ["exec-same", "customJob"]),
        (_with_unknown_type, ["inputDefinitions.parameters.n", "'COMPLEX'"]),
        (_with_text_for_tasks, ["root.dag.tasks", "object"]),
        (_with_recursion, ["contain themselves", "'comp-same'"]),
        (_with_bad_delay, ["backoffDuration", "'soon'"]),
    ],
)
def test_what_cannot_run_is_refused_with_its_place(
    compiled: dict[str, Any], break_it: Any, fragments: list[str]
) -> None:
    spec = copy.deepcopy(compiled)
    break_it(spec)
    with pytest.raises(InputError) as refused:
        _parse(spec)
    for fragment in fragments:
        assert fragment in str(refused.value)


def test_documents_are_read_in_the_forms_that_the_api_carries(compiled: dict[str, Any]) -> None:
    platform: dict[str, Any] = {"platforms": {"kubernetes": {}}}
    both = document_from_json({"pipeline_spec": compiled, "platform_spec": platform})
    assert (both.spec, both.platform, both.name) == (compiled, platform, "two")
    assert both.to_json() == {"pipeline_spec": compiled, "platform_spec": platform}
    alone = document_from_json(compiled)
    assert alone.to_json() == compiled
    text = yaml.safe_dump_all([compiled, platform])
    assert parse_documents(text) == both


def test_settings_that_mean_nothing_here_are_noted(compiled: dict[str, Any]) -> None:
    config = {"nodeSelector": {"labels": {"a": "b"}}, "imagePullPolicy": "Never", "later": 1}
    executors = {"executors": {"exec-same": config}}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": executors}}}
    pipeline = parse_pipeline(PipelineDocument(spec=compiled, platform=platform))
    assert len(pipeline.notes) == 2
    assert pipeline.notes[0].startswith("exec-same: nodeSelector is ignored")
    assert pipeline.notes[1].startswith("exec-same: later is ignored")
