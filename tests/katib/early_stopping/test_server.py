"""The early stopping service as Katib's controller and collector call it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
from kubeflow.katib import katib_api_pb2 as api
from kubeflow.katib import katib_api_pb2_grpc as api_grpc

from kubeloop.katib.early_stopping.server import EarlyStoppingServicer, mark_stopped, serving

SUCCEEDED = api.TrialStatus.TrialConditionType.SUCCEEDED


class Reports(api_grpc.DBManagerServicer):  # type: ignore[misc]  # it has no types
    """A DB manager where every trial has reported 1, 2, 3."""

    def GetObservationLog(self, request: Any, context: Any) -> Any:  # noqa: N802
        logs = [
            api.MetricLog(metric=api.Metric(name=request.metric_name, value=value))
            for value in ("1", "2", "3")
        ]
        return api.GetObservationLogReply(observation_log=api.ObservationLog(metric_logs=logs))


@contextmanager
def reports_served() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    api_grpc.add_DBManagerServicer_to_server(Reports(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@contextmanager
def called(stopped: list[str]) -> Iterator[Any]:
    """A client of the service."""
    with (
        serving(EarlyStoppingServicer(stopped.append), host="127.0.0.1", port=0) as port,
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        yield api_grpc.EarlyStoppingStub(channel)


def build_settings(**settings: str) -> Any:
    return api.EarlyStoppingSpec(
        algorithm_name="medianstop",
        algorithm_settings=[
            api.EarlyStoppingSetting(name=name, value=value) for name, value in settings.items()
        ],
    )


def test_rules_follow_from_what_the_db_manager_has() -> None:
    objective = api.ObjectiveSpec(type=api.MAXIMIZE, objective_metric_name="accuracy")
    spec = api.ExperimentSpec(
        objective=objective, early_stopping=build_settings(min_trials_required="1", start_step="2")
    )
    trial = api.Trial(
        name="t",
        spec=api.TrialSpec(objective=objective),
        status=api.TrialStatus(condition=SUCCEEDED),
    )
    with reports_served() as address, called([]) as service:
        reply = service.GetEarlyStoppingRules(
            api.GetEarlyStoppingRulesRequest(
                experiment=api.Experiment(name="e", spec=spec),
                trials=[trial],
                db_manager_address=address,
            ),
            timeout=20,
        )

    (rule,) = reply.early_stopping_rules
    assert (rule.name, rule.value, rule.comparison, rule.start_step) == (
        "accuracy",
        "1.5",
        api.LESS,
        2,
    )


def test_wrong_settings_are_an_invalid_argument() -> None:
    request = api.ValidateEarlyStoppingSettingsRequest(early_stopping=build_settings(patience="1"))
    with called([]) as service, pytest.raises(grpc.RpcError) as caught:
        service.ValidateEarlyStoppingSettings(request, timeout=20)

    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "unknown setting patience" in caught.value.details()


def test_a_stopped_trial_is_marked() -> None:
    stopped: list[str] = []
    with called(stopped) as service:
        service.SetTrialStatus(api.SetTrialStatusRequest(trial_name="t"), timeout=20)

    assert stopped == ["t"]


class Trials:
    """The API for one trial."""

    def __init__(self) -> None:
        self.trial: dict[str, Any] = {
            "metadata": {"resourceVersion": "3"},
            "status": {"conditions": [{"type": "Running", "status": "True"}]},
        }
        self.num_patches = 0

    def get_namespaced_custom_object(self, *place: str) -> dict[str, Any]:
        assert place == ("kubeflow.org", "v1beta1", "default", "trials", "t")
        return self.trial

    def patch_namespaced_custom_object_status(self, *arguments: Any) -> None:
        body = arguments[-1]
        assert body["metadata"]["resourceVersion"] == "3"
        self.trial["status"] = body["status"]
        self.num_patches += 1


def test_a_trial_is_marked_once() -> None:
    trials = Trials()

    for _ in range(2):
        mark_stopped("t", namespace="default", trials=trials)

    running, last = trials.trial["status"]["conditions"]
    assert running["type"] == "Running"
    assert (last["type"], last["status"], last["reason"], last["message"]) == (
        "EarlyStopped",
        "True",
        "TrialEarlyStopped",
        "Trial is early stopped",
    )
    assert trials.num_patches == 1
