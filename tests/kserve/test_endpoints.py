from typing import Any

import pytest

from kubeloop.kserve.endpoints import Failure, TransitionStatus, parse_endpoint

METADATA = {"name": "digits", "namespace": "a", "generation": 2, "annotations": {"x": "y"}}
MODEL = {"modelFormat": {"name": "kubeloop"}, "storageUri": "/m/1", "protocolVersion": "v2"}


def service(**status: Any) -> dict[str, Any]:
    return {"metadata": METADATA, "spec": {"predictor": {"model": MODEL}}, "status": status}


def ready(status: str, **fields: str) -> dict[str, Any]:
    return {"conditions": [{"type": "Ready", "status": status, **fields}]}


def test_service_without_a_status_is_not_ready() -> None:
    endpoint = parse_endpoint({"metadata": METADATA, "spec": {"predictor": {"model": MODEL}}})

    assert not endpoint.is_ready
    assert endpoint.url == ""
    assert endpoint.transition is TransitionStatus.UNKNOWN
    assert (endpoint.generation, endpoint.observed_generation) == (2, 0)
    assert endpoint.model_uri == "/m/1"
    assert endpoint.annotations == {"x": "y"}


def test_ready_service_has_an_url_and_no_message() -> None:
    endpoint = parse_endpoint(service(**ready("True"), url="http://x", observedGeneration=2))

    assert endpoint.is_ready
    assert endpoint.url == "http://x"
    assert endpoint.message == ""
    assert endpoint.observed_generation == 2


def test_message_is_the_reason_and_what_it_says() -> None:
    endpoint = parse_endpoint(service(**ready("False", reason="Why", message="because")))

    assert endpoint.message == "Why: because"


def test_failure_is_read_with_its_exit_code() -> None:
    info = {"reason": "ModelLoadFailed", "message": "no file", "exitCode": 1}
    endpoint = parse_endpoint(
        service(
            modelStatus={
                "transitionStatus": "BlockedByFailedLoad",
                "states": {"targetModelState": "FailedToLoad"},
                "lastFailureInfo": info,
            }
        )
    )

    assert endpoint.transition is TransitionStatus.BLOCKED
    assert endpoint.target_state == "FailedToLoad"
    assert endpoint.failure == Failure(reason="ModelLoadFailed", message="no file", exit_code=1)
    assert str(endpoint.failure) == "ModelLoadFailed: no file (exit code 1)"


def test_transition_of_a_newer_kserve_is_unknown() -> None:
    endpoint = parse_endpoint(service(modelStatus={"transitionStatus": "Dancing"}))

    assert endpoint.transition is TransitionStatus.UNKNOWN


@pytest.mark.parametrize(
    ("protocol", "path"), [("v1", "/v1/models/digits:predict"), ("v2", "/v2/models/digits/infer")]
)
def test_predict_path_follows_the_protocol(protocol: str, path: str) -> None:
    manifest = service()
    manifest["spec"] = {"predictor": {"model": {**MODEL, "protocolVersion": protocol}}}

    assert parse_endpoint(manifest).predict_path == path
