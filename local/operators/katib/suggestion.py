"""Runs suggestions: asks the algorithm for as many assignments as the experiment requests.

A cluster runs the algorithm as a Deployment; here it runs in this process, on a thread, or answers
at an endpoint of the user's. So there is none, and DeploymentReady says that the algorithm has
answered. An algorithm that refuses fails the suggestion,
also in the middle of a search, where Katib would ask again for ever. One that has nothing new left
to suggest ends it, and with its last trial the experiment, as Katib's reasons provide for but its
code never does.

Source: katib v0.19 `suggestion/suggestion_controller.go`, `suggestionclient/suggestionclient.go`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from kubeloop.errors import ConflictError, InputError, NotFoundError, PermanentError
from kubeloop.katib.early_stopping import EARLY_STOPPING, EarlyStoppingService
from kubeloop.katib.suggestion import ALGORITHMS, SearchExhaustedError, UnreachableError
from kubeloop.katib.suggestion.manifests import parse_experiment, parse_trials
from kubeloop.katib.suggestion.messages import (
    ComparisonType,
    EarlyStoppingRule,
    Experiment,
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ParameterAssignments,
    Trial,
)
from kubeloop.local.api.resources import CONFIG_MAPS, EXPERIMENTS, SUGGESTIONS, Resource
from kubeloop.local.client import Client, Manifest
from kubeloop.local.kubelet.pod_files import PodFiles
from kubeloop.local.operators.conditions import FALSE, TRUE, Clock, utc_now
from kubeloop.local.operators.controller import Reconciler, Request, Result
from kubeloop.local.operators.events import record_event
from kubeloop.local.operators.katib.algorithm_calls import (
    AlgorithmCalls,
    Algorithms,
    EarlyStoppingAlgorithms,
    find_remote_stopping,
    find_remote_suggestion,
)
from kubeloop.local.operators.katib.drafts import StatusDraft
from kubeloop.local.operators.katib.katib_config import (
    CONFIG_NAME,
    CONFIG_NAMESPACE,
    Endpoints,
    read_endpoints,
)
from kubeloop.local.operators.katib.observations import ObservationStore
from kubeloop.local.operators.katib.suggestion_volumes import SuggestionVolumes
from kubeloop.local.operators.katib.terms import (
    DEPLOYMENT_READY,
    END_REACHED,
    FAILED,
    RUNNING,
    SUCCEEDED,
)
from kubeloop.local.operators.katib.trial_lists import TrialLists
from kubeloop.local.operators.pod_states import is_being_deleted

_COMPONENT = "suggestion-controller"
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 8
_ABSENT_SECONDS = 1.0


class SuggestionReconciler(Reconciler):
    """Drives Suggestions."""

    resource: ClassVar[Resource] = SUGGESTIONS

    def __init__(
        self,
        client: Client,
        *,
        observations: ObservationStore,
        files: PodFiles,
        algorithms: Algorithms = ALGORITHMS,
        early_stopping: EarlyStoppingAlgorithms = EARLY_STOPPING,
        db_manager_address: str = "",
        clock: Clock = utc_now,
        random_source: random.Random | None = None,
    ) -> None:
        """Serve the algorithms of two registries.

        Early stopping reads the `observations`, or asks for them at `db_manager_address` where it
        answers at an endpoint; volumes of suggestions are among the `files`; `random_source` makes
        the ends of trials' names.
        """
        self._client = client
        self._observations = observations
        self._volumes = SuggestionVolumes(client, files=files)
        self._algorithms = algorithms
        self._early_stopping = early_stopping
        self._db_manager_address = db_manager_address
        self._clock = clock
        self._random = random_source or random.SystemRandom()
        self._trials = TrialLists(client, _parse_trial)

    async def reconcile(self, request: Request) -> Result:
        """Bring one suggestion forward by one pass."""
        try:
            stored = await self._client.get(SUGGESTIONS, request.name, namespace=request.namespace)
            experiment = await self._client.get(
                EXPERIMENTS, request.name, namespace=request.namespace
            )
        except NotFoundError:
            self._trials.forget(request)
            return Result()
        draft = StatusDraft.of(stored, now=self._clock())
        if is_being_deleted(stored) or draft.says(SUCCEEDED) or draft.says(FAILED):
            self._trials.forget(request)
            return Result()
        draft.start(reason="SuggestionCreated", message="Suggestion is created")
        await self._volumes.create(stored)
        result = Result()
        try:
            await self._advance(draft, experiment)
        except (InputError, PermanentError) as error:
            refused = "Request failed" if draft.says(RUNNING) else "Validation failed"
            draft.negate(RUNNING)
            draft.write(FAILED, reason="SuggestionFailed", message=f"{refused}: {error}")
        except Exception as error:
            await self._report(stored, error)
            if draft.says(RUNNING) or not isinstance(error, UnreachableError):
                raise
            result = Result(requeue_after_seconds=_ABSENT_SECONDS)
        if draft.is_changed:
            await self._save(draft)
        return result

    async def _save(self, draft: StatusDraft) -> None:
        """Write the status, also if the experiment has meanwhile asked for more.

        A slow algorithm would else have to begin again whenever a trial ends.

        Raises:
            ConflictError: Something else has changed.
        """
        metadata = draft.stored["metadata"]
        try:
            await self._client.replace_status(draft.render())
        except ConflictError:
            now = await self._client.get(
                SUGGESTIONS, metadata["name"], namespace=metadata["namespace"]
            )
            is_same = now["metadata"]["uid"] == metadata["uid"]
            is_behind = now["spec"].get("requests", 0) >= draft.status.get("suggestionCount", 0)
            if not is_same or not is_behind or now.get("status") != draft.stored.get("status"):
                raise
            await self._client.replace_status({**now, "status": draft.status})

    async def _advance(self, draft: StatusDraft, experiment: Manifest) -> None:
        kept = draft.status.get("algorithmSettings") or []
        asked = parse_experiment(experiment, settings=kept)
        calls = await self._find_algorithms(asked)
        if not draft.says(RUNNING):
            await self._start(draft, asked, calls)
        total = draft.stored["spec"].get("requests") or 0
        missing = total - draft.status.get("suggestionCount", 0)
        if missing <= 0:
            return
        # NB: the order is part of what a seeded search depends on.
        found = await self._trials.read(experiment, suggestion=draft.stored)
        trials = tuple(trial for trial in found if trial is not None)
        request = GetSuggestionsRequest(
            experiment=asked,
            trials=trials,
            current_request_number=missing,
            total_request_number=total,
        )
        try:
            reply = await calls.suggest(request)
        except SearchExhaustedError as error:
            draft.finish(SUCCEEDED, reason=END_REACHED, message=f"Suggestion has ended: {error}")
            if error.num_left == 0:
                return
            reply = await calls.suggest(
                replace(
                    request,
                    current_request_number=error.num_left,
                    total_request_number=total - missing + error.num_left,
                ),
            )
        rules = await calls.find_rules(asked, trials)
        await self._volumes.fill(draft.stored, reply.parameter_assignments)
        self._store(draft, reply, rules=rules)

    async def _start(self, draft: StatusDraft, asked: Experiment, calls: AlgorithmCalls) -> None:
        try:
            await calls.validate(asked)
        except UnreachableError:
            _mark_ready(draft, is_ready=False)
            raise
        except (InputError, PermanentError):
            _mark_ready(draft, is_ready=True)
            raise
        _mark_ready(draft, is_ready=True)
        draft.write(RUNNING, reason="SuggestionRunning", message="Suggestion is running")

    async def _find_algorithms(self, asked: Experiment) -> AlgorithmCalls:
        try:
            config = await self._client.get(CONFIG_MAPS, CONFIG_NAME, namespace=CONFIG_NAMESPACE)
        except NotFoundError:
            config = None
        endpoints = read_endpoints(config)
        name = asked.spec.algorithm.algorithm_name
        remote = await find_remote_suggestion(endpoints, name)
        return AlgorithmCalls(
            suggestion=remote or self._algorithms[name](),
            stopping=await self._find_early_stopping(asked, endpoints),
        )

    async def _find_early_stopping(
        self, asked: Experiment, endpoints: Endpoints
    ) -> EarlyStoppingService | None:
        if asked.spec.early_stopping is None:
            return None
        name = asked.spec.early_stopping.algorithm_name
        remote = await find_remote_stopping(
            endpoints, name, db_manager_address=self._db_manager_address
        )
        return remote or self._early_stopping[name](self._read_values)

    def _read_values(self, trial_name: str, metric_name: str, limit: int) -> Sequence[str]:
        logs = self._observations.read(trial_name, metric_name=metric_name, limit=limit)
        return [log.value for log in logs]

    def _store(
        self,
        draft: StatusDraft,
        reply: GetSuggestionsReply,
        *,
        rules: Sequence[EarlyStoppingRule],
    ) -> None:
        suggestions = [
            *(draft.status.get("suggestions") or []),
            *(self._render(draft, entry, rules) for entry in reply.parameter_assignments),
        ]
        names = [entry["name"] for entry in suggestions]
        if len(set(names)) < len(names):
            raise PermanentError("The response contains unexpected trials: a name comes twice")
        draft.status["suggestions"] = suggestions
        draft.status["suggestionCount"] = len(suggestions)
        if reply.algorithm is not None:
            settings = {
                entry["name"]: entry["value"]
                for entry in draft.status.get("algorithmSettings") or []
            } | {setting.name: setting.value for setting in reply.algorithm.algorithm_settings}
            draft.status["algorithmSettings"] = [
                {"name": name, "value": value} for name, value in settings.items()
            ]

    def _render(
        self,
        draft: StatusDraft,
        entry: ParameterAssignments,
        rules: Sequence[EarlyStoppingRule],
    ) -> Manifest:
        suffix = "".join(self._random.choices(_SUFFIX_LETTERS, k=_SUFFIX_LENGTH))
        assignment: Manifest = {
            "name": entry.trial_name or f"{draft.stored['metadata']['name']}-{suffix}",
            "parameterAssignments": [
                {"name": value.name, "value": value.value} for value in entry.assignments
            ],
        }
        if entry.labels:
            assignment["labels"] = dict(entry.labels)
        if rules:
            assignment["earlyStoppingRules"] = [
                {
                    "name": rule.name,
                    "value": rule.value,
                    "comparison": ComparisonType(rule.comparison).name.lower(),
                    "startStep": rule.start_step,
                }
                for rule in rules
            ]
        return assignment

    async def _report(self, suggestion: Manifest, error: Exception) -> None:
        await record_event(
            self._client,
            suggestion,
            type="Warning",
            reason="ReconcileError",
            message=f"Failed to reconcile: {error}",
            component=_COMPONENT,
            now=self._clock(),
        )


def _mark_ready(draft: StatusDraft, *, is_ready: bool) -> None:
    draft.write(
        DEPLOYMENT_READY,
        reason="DeploymentReady" if is_ready else "DeploymentNotReady",
        message=f"Deployment is {'ready' if is_ready else 'not ready'}",
        status=TRUE if is_ready else FALSE,
    )


def _parse_trial(trial: Manifest) -> Trial | None:
    """A trial as algorithms see it; None for one that they cannot learn from."""
    return next(iter(parse_trials((trial,))), None)
