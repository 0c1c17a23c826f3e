"""All that is wrong with a pipeline is listed at once, and what only looks wrong is not."""

# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp import compiler, dsl

from kubeloop.local.kubelet.images import ImagesConfig
from kubeloop.local.pipelines.spec.checking import CheckReport, check_run
from kubeloop.local.pipelines.spec.documents import PipelineDocument
from kubeloop.local.pipelines.spec.values import ParameterType
from kubeloop.local.pipelines.spec.wiring import may_fit
from kubeloop.pipelines.packages import COMPILED

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def make(n: int, data: dsl.Output[dsl.Dataset]) -> int:
    return n


@dsl.component(base_image="python:3.11", packages_to_install=["no-such-package==1.0"])
def use(data: dsl.Input[dsl.Dataset], flag: bool = True) -> str:
    return str(flag)


@dsl.pipeline(name="checked")
def checked(n: int, flag: bool = True):
    made = make(n=n)
    with dsl.If(made.outputs["Output"] > 1):
        use(data=made.outputs["data"], flag=flag)
    with dsl.ParallelFor([{"a": 1}]) as item:
        make(n=item.a)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("compiled") / "checked.yaml"
    compiler.Compiler().compile(checked, str(path))
    spec: dict[str, Any] = yaml.safe_load(path.read_text())
    return spec


def check(spec: dict[str, Any], platform: Any = None, **parameters: Any) -> CheckReport:
    document = PipelineDocument(spec=spec, platform=platform or {})
    return check_run(document, parameters, images=ImagesConfig())


def messages(report: CheckReport) -> str:
    return "\n".join(fault.message for fault in report.problems)


def test_a_pipeline_of_the_compiler_has_no_problem(compiled: dict[str, Any]) -> None:
    report = check(compiled, n=3)
    assert messages(report) == ""
    assert set(report.images) == {"python:3.11"}
    (note,) = report.notes
    assert "no-such-package==1.0" in note.message


def test_our_own_pipelines_have_no_problem() -> None:
    for path in COMPILED.glob("*.yaml"):
        spec, platform = yaml.safe_load_all(path.read_text())
        declared = spec["root"]["inputDefinitions"]["parameters"]
        required = {name: "x" for name, given in declared.items() if "defaultValue" not in given}
        assert messages(check(spec, platform, **required)) == ""


def test_all_problems_are_listed_at_once(compiled: dict[str, Any]) -> None:
    spec = copy.deepcopy(compiled)
    spec["root"]["dag"]["tasks"]["make"]["componentRef"]["name"] = "comp-mak"
    spec["deploymentSpec"]["executors"]["exec-use"]["container"]["image"] = "An Image"
    spec["components"]["comp-make"]["executorLabel"] = "exec-mak"
    found = messages(check(spec, m=1, flag="maybe"))
    for fragment in (
        "component 'comp-mak', which is not defined",
        "executor 'exec-mak' is not defined",
        "'An Image' is no name of an image",
        "'m' of pipeline 'checked' does not exist",
        "'flag' of pipeline 'checked' takes true or false (BOOLEAN), not 'maybe'",
        "'n' of pipeline 'checked', a whole number (NUMBER_INTEGER), is required and missing",
    ):
        assert fragment in found


def _give_text_as_flag(spec: dict[str, Any]) -> None:
    inner = spec["components"]["comp-condition-1"]
    inner["inputDefinitions"]["parameters"]["pipelinechannel--flag"]["parameterType"] = "LIST"


def _give_a_model(spec: dict[str, Any]) -> None:
    outputs = spec["components"]["comp-make"]["outputDefinitions"]["artifacts"]
    outputs["data"]["artifactType"]["schemaTitle"] = "system.Model"


def _give_another_version(spec: dict[str, Any]) -> None:
    outputs = spec["components"]["comp-make"]["outputDefinitions"]["artifacts"]
    outputs["data"]["artifactType"]["schemaVersion"] = "1.0.0"


def _wait_in_a_circle(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["tasks"]["make"]["dependentTasks"] = ["condition-1"]


def _break_the_condition(spec: dict[str, Any]) -> None:
    spec["root"]["dag"]["tasks"]["condition-1"]["triggerPolicy"]["condition"] = "inputs.("


def _compile_by_v1(spec: dict[str, Any]) -> None:
    spec["sdkVersion"] = "kfp-1.8.22"


def _require_nonsense(spec: dict[str, Any]) -> None:
    command = spec["deploymentSpec"]["executors"]["exec-use"]["container"]["command"]
    command[:] = [word.replace("no-such-package==1.0", "no such==") for word in command]


def _take_the_command(spec: dict[str, Any]) -> None:
    container = spec["deploymentSpec"]["executors"]["exec-use"]["container"]
    del container["command"], container["args"]


@pytest.mark.parametrize(
    ("break_it", "fragment"),
    [
        (_give_text_as_flag, "gives a LIST as input 'flag', which takes a BOOLEAN"),
        (_give_a_model, "a system.Model; it takes a system.Dataset"),
        (_give_another_version, "of version 1.0.0; it takes version 0.0.1"),
        (_wait_in_a_circle, "wait for each other in a circle"),
        (_break_the_condition, "'inputs.(' is no CEL expression"),
        (_compile_by_v1, "compiled by kfp 1.8.22"),
        (_require_nonsense, "packages_to_install has 'no such=='"),
        (_take_the_command, "its own entry point is not known"),
    ],
)
def test_each_kind_of_problem_is_found(
    compiled: dict[str, Any], break_it: Any, fragment: str
) -> None:
    spec = copy.deepcopy(compiled)
    break_it(spec)
    assert fragment in messages(check(spec, n=1))


def test_a_newer_compiler_is_a_note(compiled: dict[str, Any]) -> None:
    report = check({**compiled, "sdkVersion": "kfp-2.99.0"}, n=1)
    assert report.problems == ()
    assert "newer than this kubeloop knows" in report.notes[0].message


def test_a_setting_without_effect_here_is_a_note(compiled: dict[str, Any]) -> None:
    executors = {"executors": {"exec-make": {"nodeSelector": {"labels": {"a": "b"}}}}}
    platform = {"platforms": {"kubernetes": {"deploymentSpec": executors}}}
    report = check(compiled, platform, n=1)
    assert report.problems == ()
    assert any("nodeSelector is ignored" in note.message for note in report.notes)


@pytest.mark.parametrize(
    ("given", "expected", "fits"),
    [
        (ParameterType.NUMBER_INTEGER, ParameterType.NUMBER_DOUBLE, True),
        (ParameterType.STRING, ParameterType.STRUCT, True),
        (ParameterType.LIST, ParameterType.STRING, True),
        (ParameterType.LIST, ParameterType.STRUCT, False),
        (ParameterType.BOOLEAN, ParameterType.NUMBER_INTEGER, False),
    ],
)
def test_types_fit_as_kfp_converts_values(
    given: ParameterType, expected: ParameterType, fits: bool
) -> None:
    assert may_fit(given, expected) is fits


def test_what_the_api_refuses_names_all_faults(runner: Any, tmp_path: Path) -> None:
    path = Path(runner.compile(checked))
    spec = yaml.safe_load(path.read_text())
    del spec["deploymentSpec"]["executors"]["exec-make"]
    _wait_in_a_circle(spec)
    broken = tmp_path / "broken.yaml"
    broken.write_text(yaml.safe_dump(spec))
    response = runner.http(
        "POST", "pipelines/upload", files={"uploadfile": ("broken.yaml", broken.read_bytes())}
    )
    assert response.status_code == 400
    assert "'exec-make' is not defined" in response.text
    assert "circle" in response.text
