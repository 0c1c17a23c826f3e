"""What passes between tasks: parameters and artifacts of every type, compared with kfp.local."""

# ruff: noqa: PTH123  # a component's module has what its body imports
# KFP reads annotations that are no types to mypy.
# mypy: disable-error-code="no-untyped-def, valid-type, type-arg, no-any-return, name-match"

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kfp import dsl

from kubeloop.testing.kfp_local import run_with_kfp_local

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


class Every(NamedTuple):
    """A value of every type, and the types that a component saw."""

    text: str
    whole: int
    real: float
    flag: bool
    items: list
    fields: dict
    types: str


class Notes(dsl.Artifact):  # type: ignore[misc]  # kfp has no types
    """A type of a user's own."""

    schema_title = "google.Notes"
    schema_version = "1.2.0"


@component
def pass_on(
    text: str, whole: int, real: float, flag: bool, items: list, fields: dict
) -> NamedTuple(
    "Every",
    [
        ("text", str),
        ("whole", int),
        ("real", float),
        ("flag", bool),
        ("items", list),
        ("fields", dict),
        ("types", str),
    ],
):
    given = (text, whole, real, flag, items, fields)
    inner = [type(value).__name__ for value in (*items, *fields.values())]
    return (*given, " ".join([*(type(value).__name__ for value in given), *inner]))


@component
def optional(
    required: str,
    text: str = None,  # type: ignore[assignment]  # noqa: RUF013  # KFP's way of optional
    number: int = None,  # type: ignore[assignment]  # noqa: RUF013
    given: float = 0.25,
    data: dsl.Input[dsl.Dataset] = None,
) -> str:
    return f"{required} {text} {number} {given} {data}"


@component
def write(text: str, data: dsl.Output[dsl.Dataset], times: int = 1) -> int:
    with open(data.path, "w") as file:
        file.write(text * times)
    data.metadata["words"] = len(text.split())
    return len(text * times)


@component
def join(first: dsl.Input[dsl.Dataset], second: dsl.Input[dsl.Dataset]) -> str:
    texts = []
    for data in (first, second):
        with open(data.path) as file:
            texts.append(f"{file.read()} {data.metadata['words']:g} {data.name}")
    return " | ".join(texts)


@component
def write_path(text: str, number: dsl.OutputPath(int), file: dsl.OutputPath("Dataset")):
    with open(number, "w") as handle:
        handle.write("7")
    with open(file, "w") as handle:
        handle.write(text)


@component
def read_path(number: int, file: dsl.InputPath("Dataset")) -> str:
    with open(file) as handle:
        return f"{handle.read()} {number}"


@component
def report(
    model: dsl.Output[dsl.Model],
    metrics: dsl.Output[dsl.Metrics],
    classes: dsl.Output[dsl.ClassificationMetrics],
    slices: dsl.Output[dsl.SlicedClassificationMetrics],
    page: dsl.Output[dsl.HTML],
    text: dsl.Output[dsl.Markdown],
    plain: dsl.Output[dsl.Artifact],
):
    model.framework = "torch"
    metrics.log_metric("loss", 0.5)
    metrics.log_metric("steps", 10)
    classes.log_roc_curve([0.0, 1.0], [0.0, 1.0], [1.0, 0.0])
    classes.log_confusion_matrix(["a", "b"], [[1, 2], [3, 4]])
    slices.metadata["evaluationSlices"] = [{"slice": "all"}]  # the SDK's own methods are broken
    for artifact, content in ((page, "<p>hello</p>"), (text, "# hello"), (plain, "plain")):
        with open(artifact.path, "w") as file:
            file.write(content)


@dsl.pipeline(name="every-type")
def every_type(
    text: str = "a b",
    whole: int = 3,
    real: float = 2.5,
    flag: bool = False,
    items: list = ["x", 2.5, True, ["y"]],  # noqa: B006
    fields: dict = {"k": ["v"]},  # noqa: B006
) -> Every:
    first = pass_on(text=text, whole=whole, real=real, flag=flag, items=items, fields=fields)
    given = first.outputs
    last = pass_on(**{name: given[name] for name in Every._fields if name != "types"}).outputs
    return Every(*(last[name] for name in Every._fields))


@dsl.pipeline(name="constants")
def constants() -> Every:
    last = pass_on(
        text="{{literal}} $HOME 'quoted' \"ü\"\n",
        whole=-4,
        real=1e-3,
        flag=True,
        items=[],
        fields={},
    ).outputs
    return Every(*(last[name] for name in Every._fields))


@dsl.pipeline(name="left-out")
def left_out(number: int = None) -> str:  # type: ignore[assignment]  # noqa: RUF013
    return optional(required="r", number=number).output


@dsl.pipeline(name="files")
def files(text: str = "one two") -> NamedTuple(
    "Outputs", [("joined", str), ("data", dsl.Dataset), ("path", str)]
):
    first = write(text=text)
    second = write(text="three").after(first)
    joined = join(first=first.outputs["data"], second=second.outputs["data"])
    paths = write_path(text=joined.output)
    path = read_path(number=paths.outputs["number"], file=paths.outputs["file"])
    outputs = NamedTuple("Outputs", [("joined", str), ("data", dsl.Dataset), ("path", str)])  # noqa: UP014
    return outputs(joined.output, first.outputs["data"], path.output)


@dsl.pipeline
def inner(text: str, times: int = 2) -> NamedTuple(
    "Outputs", [("size", int), ("data", dsl.Dataset)]
):
    made = write(text=text, times=times)
    outputs = NamedTuple("Outputs", [("size", int), ("data", dsl.Dataset)])  # noqa: UP014
    return outputs(made.outputs["Output"], made.outputs["data"])


@dsl.pipeline
def middle(text: str) -> NamedTuple("Outputs", [("size", int), ("data", dsl.Dataset)]):
    nested = inner(text=text, times=3)
    outputs = NamedTuple("Outputs", [("size", int), ("data", dsl.Dataset)])  # noqa: UP014
    return outputs(nested.outputs["size"], nested.outputs["data"])


@dsl.pipeline(name="nested")
def nested(text: str = "deep") -> NamedTuple("Outputs", [("joined", str), ("size", int)]):
    first, second = middle(text=text), inner(text=text)
    joined = join(first=first.outputs["data"], second=second.outputs["data"])
    outputs = NamedTuple("Outputs", [("joined", str), ("size", int)])  # noqa: UP014
    return outputs(joined.output, first.outputs["size"])


@dsl.container_component
def note(notes: dsl.Output[Notes]):
    return dsl.ContainerSpec(
        image="busybox", command=["sh", "-c", 'printf noted > "$0"'], args=[notes.path]
    )


@dsl.container_component
def read_note(notes: dsl.Input[Notes], text: dsl.OutputPath(str)):
    return dsl.ContainerSpec(image="busybox", command=["cp"], args=[notes.path, text])


@dsl.pipeline(name="reported")
def reported():
    report()
    read_note(notes=note().outputs["notes"])


LITERAL = "{{literal}} $HOME 'quoted' \"ü\"\n"
EVERY_TYPE = {
    "text": "a b",
    "whole": 3,
    "real": 2.5,
    "flag": False,
    "items": ["x", 2.5, True, ["y"]],
    "fields": {"k": ["v"]},
    "types": "str int float bool list dict str float bool list list",
}
CONSTANTS = {
    "text": LITERAL,
    "whole": -4,
    "real": 0.001,
    "flag": True,
    "items": [],
    "fields": {},
    "types": "str int float bool list dict",
}


@pytest.mark.parametrize(
    ("pipeline", "arguments", "expected"),
    [
        (every_type, {}, EVERY_TYPE),
        (every_type, {**CONSTANTS, "types": None}, CONSTANTS),
        (constants, {}, CONSTANTS),
        (
            files,
            {},
            {
                "joined": "one two 2 data | three 1 data",
                "data": "one two",
                "path": "one two 2 data | three 1 data 7",
            },
        ),
        (nested, {}, {"joined": "deepdeepdeep 1 data | deepdeep 1 data", "size": 12}),
    ],
    ids=["defaults", "given", "constants", "artifacts", "nested pipelines"],
)
def test_outputs_are_those_of_kfp_local(
    runner: Any, tmp_path: Path, pipeline: Any, arguments: dict[str, Any], expected: dict[str, Any]
) -> None:
    given = {name: value for name, value in arguments.items() if value is not None}
    run = runner.run(pipeline, **given)
    assert run.state == "SUCCEEDED", run.error
    assert run.outputs() == expected
    assert run_with_kfp_local(pipeline, tmp_path, **given) == expected


def test_inputs_that_are_left_out_take_the_functions_defaults(runner: Any) -> None:
    assert runner.run(left_out).outputs() == {"Output": "r None None 0.25 None"}
    assert runner.run(left_out, number=4).outputs() == {"Output": "r None 4 0.25 None"}


def test_artifacts_of_every_type_are_recorded_with_type_content_and_metadata(runner: Any) -> None:
    run = runner.run(reported)
    assert run.state == "SUCCEEDED", run.error
    keys = ("model", "metrics", "classes", "slices", "page", "text", "plain")
    found = {key: run.artifacts("report", key)[0] for key in keys}
    assert {key: item["type"] for key, item in found.items()} == {
        "model": "Model",
        "metrics": "Metric",
        "classes": "ClassificationMetric",
        "slices": "SlicedClassificationMetric",
        "page": "HTML",
        "text": "Markdown",
        "plain": "Artifact",
    }
    assert found["model"]["metadata"] == {"framework": "torch"}
    assert found["metrics"]["metadata"] == {"loss": 0.5, "steps": 10}
    assert found["classes"]["metadata"]["confusionMatrix"]["rows"][1] == {"row": [3, 4]}
    assert found["classes"]["metadata"]["confidenceMetrics"][0]["confidenceThreshold"] == 1
    assert found["slices"]["metadata"]["evaluationSlices"][0]["slice"] == "all"
    assert Path(found["page"]["uri"]).read_text() == "<p>hello</p>"
    assert found["text"]["digest"].startswith("sha256:")
    (own,) = run.artifacts("note", "notes")
    assert (own["type"], own["schema_title"]) == ("Artifact", "google.Notes")
    assert run.output("read-note", "text") == "noted"
