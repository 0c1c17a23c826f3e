"""Placeholders in texts, values and command lines."""

from __future__ import annotations

import pytest

from kubeloop.errors import InputError
from kubeloop.local.pipelines.engine.placeholders import (
    Scope,
    resolve_arguments,
    resolve_text,
    resolve_value,
)
from kubeloop.local.pipelines.spec.uris import local_path

ARTIFACT = {"uri": "/data/a", "metadata": {"k": 1, "s": "x"}}
SCOPE = Scope(
    parameters={"n": 3, "real": 2.0, "items": [1, "a"], "text": "{{$}}", "none": None},
    facts={"pipeline_job_uuid": "id-of-run"},
    input_artifacts={"data": [ARTIFACT]},
    output_artifacts={"made": [{"uri": "/out/made"}]},
    output_files={"score": "/out/score"},
    executor_input='{"inputs":{}}',
)


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("{{$}}", '{"inputs":{}}'),
        ("n={{$.inputs.parameters['n']}}", "n=3"),
        ('n={{$.inputs.parameters["n"]}};', "n=3;"),
        ("{{$.inputs.parameters['items']}}", '[1,"a"]'),
        ("{{$.inputs.parameters['text']}}", "{{$}}"),
        ("{{$.inputs.artifacts['data'].uri}}", "/data/a"),
        ("{{$.inputs.artifacts['data'].path}}", "/data/a"),
        ("{{$.inputs.artifacts['data']}}", '[{"uri":"/data/a","metadata":{"k":1,"s":"x"}}]'),
        ("{{$.inputs.artifacts['data'].metadata}}", '{"k":1,"s":"x"}'),
        ("{{$.inputs.artifacts['data'].metadata['s']}}", "x"),
        ("{{$.outputs.artifacts['made'].path}}", "/out/made"),
        ("{{$.outputs.parameters['score'].output_file}}", "/out/score"),
        ("run {{$.pipeline_job_uuid}}!", "run id-of-run!"),
        ("{{$.workspace_path}}/x", "/kfp-workspace/x"),
        ("{{$.unknown}} {{workflow.name}}", "{{$.unknown}} {{workflow.name}}"),
    ],
)
def test_texts(text: str, resolved: str) -> None:
    assert resolve_text(text, SCOPE) == resolved


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{{$.inputs.parameters['none']}}", "'none'"),
        ("{{$.inputs.parameters['other']}}", "'other'"),
        ("{{$.inputs.artifacts['other'].uri}}", "there are 'data'"),
        ("{{$.inputs.artifacts['data'].size}}", "uri, path and metadata"),
        ("{{$.outputs.parameters['other'].output_file}}", "'score'"),
    ],
)
def test_a_placeholder_without_a_value_is_refused(text: str, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        resolve_text(text, SCOPE)


def test_a_value_that_is_one_placeholder_keeps_its_type() -> None:
    value = {"a": ["{{$.inputs.parameters['n']}}", "n{{$.inputs.parameters['n']}}"], "b": 1}
    assert resolve_value(value, SCOPE) == {"a": [3, "n3"], "b": 1}


def test_concat_and_if_present() -> None:
    arguments = [
        '{"Concat": ["a-", "{{$.inputs.parameters[\'n\']}}", "-z"]}',
        '{"IfPresent": {"InputName": "n", "Then": ["--n", "{{$.inputs.parameters[\'n\']}}"]}}',
        '{"IfPresent": {"InputName": "none", "Then": ["--none"], "Else": "else"}}',
        '{"IfPresent": {"InputName": "other", "Then": ["--other"]}}',
        '{"IfPresent": {"InputName": "data", "Then": {"Concat": ["d=", "'
        "{{$.inputs.artifacts['data'].uri}}\"]}}}",
        '{"other": "json"}',
    ]
    expected = ["a-3-z", "--n", "3", "else", "d=/data/a", '{"other": "json"}']
    assert resolve_arguments(arguments, SCOPE) == expected


def test_paths_of_remote_artifacts_are_those_that_the_sdk_expects() -> None:
    assert local_path("s3://bucket/key") == "/s3/bucket/key"
    assert local_path("gs://bucket/key") == "/gcs/bucket/key"
    assert local_path("oci://registry/image") == "/oci/registry_image/models"
    assert local_path("file:///a/b") == "/a/b"
    assert local_path("/a/b") == "/a/b"
