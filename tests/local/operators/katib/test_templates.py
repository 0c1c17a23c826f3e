"""Trial templates, rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubeloop.errors import InputError
from kubeloop.local.operators.katib.templates import (
    is_meta_reference,
    read_template,
    render_trial,
)

JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"labels": {"team": "a"}, "annotations": {"note.org/x": "b"}},
    "spec": {"args": ["--lr=${trialParameters.lr}", "${trialParameters.lr}"]},
}


def render(
    parameters: dict[str, str], values: dict[str, str], job: dict[str, Any] = JOB
) -> dict[str, Any]:
    template = {
        "trialSpec": job,
        "trialParameters": [{"name": n, "reference": r} for n, r in parameters.items()],
    }
    return render_trial(
        template,
        [{"name": name, "value": value} for name, value in values.items()],
        text=read_template(template, lambda _namespace, _name: None),
        trial_name="digits-x",
        namespace="team",
    )


def test_every_placeholder_gets_its_value() -> None:
    job = render({"lr": "learning_rate"}, {"learning_rate": "0.01"})

    assert job["spec"]["args"] == ["--lr=0.01", "0.01"]


def test_name_and_namespace_are_the_trials_and_the_rest_stays() -> None:
    job = render({"lr": "lr"}, {"lr": "1"})

    assert job["metadata"] == {**JOB["metadata"], "name": "digits-x", "namespace": "team"}


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ("${trialSpec.Name}", "digits-x"),
        ("${trialSpec.Namespace}", "team"),
        ("${trialSpec.Kind}", "Job"),
        ("${trialSpec.APIVersion}", "batch/v1"),
        ("${trialSpec.Labels[team]}", "a"),
        ("${trialSpec.Annotations[note.org/x]}", "b"),
    ],
)
def test_meta_references_take_their_value_from_the_trial(reference: str, value: str) -> None:
    job = {**JOB, "spec": {"args": ["${trialParameters.lr}/${trialParameters.meta}"]}}

    rendered = render({"lr": "lr", "meta": reference}, {"lr": "1"}, job)

    assert is_meta_reference(reference)
    assert rendered["spec"]["args"] == [f"1/{value}"]


@pytest.mark.parametrize("reference", ["lr", "${trialSpec.Size}", "${trialSpec.Spec[x]}", ""])
def test_other_references_are_search_parameters(reference: str) -> None:
    assert not is_meta_reference(reference)


@pytest.mark.parametrize("value", ['say "hi"', "", "back\\slash", "zwölf", "a\nb"])
def test_any_text_is_put_in_unharmed(value: str) -> None:
    assert render({"lr": "lr"}, {"lr": value})["spec"]["args"][1] == value


def test_a_missing_label_is_named() -> None:
    job = {**JOB, "spec": {"args": ["${trialParameters.lr}${trialParameters.x}"]}}

    with pytest.raises(InputError, match="no labels entry 'nope'"):
        render({"lr": "lr", "x": "${trialSpec.Labels[nope]}"}, {"lr": "1"}, job)


def test_assignments_must_be_as_many_as_parameters() -> None:
    with pytest.raises(InputError, match="assigned 2 parameters and the template takes 1"):
        render({"lr": "lr"}, {"lr": "1", "more": "2"})


def test_an_assignment_for_another_parameter_is_refused() -> None:
    with pytest.raises(InputError, match="assigned no value to parameter lr"):
        render({"lr": "lr"}, {"other": "1"})


def test_a_config_maps_template_may_be_yaml() -> None:
    source = {"configMapNamespace": "kubeflow", "configMapName": "t", "templatePath": "job.yaml"}
    template = {"configMap": source, "trialParameters": [{"name": "n", "reference": "n"}]}
    yaml = "kind: Job\nspec: {n: ${trialParameters.n}}"
    text = read_template(template, lambda _namespace, _name: {"data": {"job.yaml": yaml}})

    job = render_trial(
        template, [{"name": "n", "value": "3"}], text=text, trial_name="t", namespace="d"
    )

    assert job["spec"] == {"n": 3}


@pytest.mark.parametrize(
    ("config_map", "match"),
    [(None, "ConfigMap kubeflow/t was not found"), ({"data": {}}, "has no entry 'job.yaml'")],
)
def test_a_missing_template_is_named(config_map: dict[str, Any] | None, match: str) -> None:
    source = {"configMapNamespace": "kubeflow", "configMapName": "t", "templatePath": "job.yaml"}

    with pytest.raises(InputError, match=match):
        read_template({"configMap": source}, lambda _namespace, _name: config_map)


def test_the_template_text_is_plain_json() -> None:
    text = read_template({"trialSpec": JOB}, lambda _namespace, _name: None)

    assert json.loads(text) == JOB
