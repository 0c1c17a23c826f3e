"""Runs suggestions: asks the algorithm for as many assignments as the experiment requests.

A cluster runs the algorithm as a Deployment; here it runs in this process, on a thread, so there is
none, and DeploymentReady is True from the start. An algorithm that refuses fails the suggestion,
also in the middle of a search, where Katib would ask again for ever.

Source: katib v0.19 `suggestion/suggestion_controller.go`, `suggestionclient/suggestionclient.go`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import ClassVar

from kubeloop.errors import InputError, NotFoundError, PermanentError
from kubeloop.katib.suggestion import ALGORITHMS, SuggestionService
from kubeloop.katib.suggestion.manifests import parse_experiment, parse_trials
from kubeloop.katib.suggestion.messages import (
    ComparisonType,
    GetSuggestionsReply,
    GetSuggestionsRequest,
    ParameterAssignments,
    ValidateAlgorithmSettingsRequest,
)
from kubeloop.local.api.resources import EXPERIMENTS, SUGGESTIONS, TRIALS, Resource
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import Clock, utc_now
from kubeloop.local.operators.controller import Reconciler, Request, Result
from kubeloop.local.operators.events import record_event
from kubeloop.local.operators.katib.drafts import StatusDraft
from kubeloop.local.operators.katib.terms import (
    DEPLOYMENT_READY,
    EXPERIMENT_LABEL,
    FAILED,
    RUNNING,
    SUCCEEDED,
)
from kubeloop.local.operators.katib.trials import own_trials
from kubeloop.local.operators.pod_states import is_being_deleted

_COMPONENT = "suggestion-controller"
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 8

Algorithms = Mapping[str, Callable[[], SuggestionService]]


class SuggestionReconciler(Reconciler):
    """Drives Suggestions."""

    resource: ClassVar[Resource] = SUGGESTIONS

    def __init__(
        self,
        client: Client,
        *,
        algorithms: Algorithms = ALGORITHMS,
        clock: Clock = utc_now,
        random_source: random.Random | None = None,
    ) -> None:
        """Serve the algorithms of a registry; `random_source` makes the ends of trials' names."""
        self._client = client
        self._algorithms = algorithms
        self._clock = clock
        self._random = random_source or random.SystemRandom()

    async def reconcile(self, request: Request) -> Result:
        """Bring one suggestion forward by one pass."""
        try:
            stored = await self._client.get(SUGGESTIONS, request.name, namespace=request.namespace)
            experiment = await self._client.get(
                EXPERIMENTS, request.name, namespace=request.namespace
            )
        except NotFoundError:
            return Result()
        draft = StatusDraft.of(stored, now=self._clock())
        if is_being_deleted(stored) or draft.says(SUCCEEDED) or draft.says(FAILED):
            return Result()
        draft.start(reason="SuggestionCreated", message="Suggestion is created")
        draft.write(DEPLOYMENT_READY, reason="DeploymentReady", message="Deployment is ready")
        try:
            await self._advance(draft, experiment)
        except (InputError, PermanentError) as error:
            refused = "Request failed" if draft.says(RUNNING) else "Validation failed"
            draft.negate(RUNNING)
            draft.write(FAILED, reason="SuggestionFailed", message=f"{refused}: {error}")
        except Exception as error:
            await self._report(stored, error)
            raise
        if draft.is_changed:
            await self._client.replace_status(draft.render())
        return Result()

    async def _advance(self, draft: StatusDraft, experiment: Manifest) -> None:
        kept = draft.status.get("algorithmSettings") or []
        asked = parse_experiment(experiment, settings=kept)
        service = self._algorithms[asked.spec.algorithm.algorithm_name]()
        if not draft.says(RUNNING):
            await asyncio.to_thread(
                service.validate_algorithm_settings,
                ValidateAlgorithmSettingsRequest(experiment=asked),
            )
            draft.write(RUNNING, reason="SuggestionRunning", message="Suggestion is running")
        total = draft.stored["spec"].get("requests") or 0
        missing = total - draft.status.get("suggestionCount", 0)
        if missing <= 0:
            return
        request = GetSuggestionsRequest(
            experiment=asked,
            trials=parse_trials(await self._list_trials(experiment, draft.stored)),
            current_request_number=missing,
            total_request_number=total,
        )
        reply = await asyncio.to_thread(service.get_suggestions, request)
        if len(reply.parameter_assignments) != missing:
            raise PermanentError(
                f"The response contains unexpected trials: {missing} were asked for, not "
                f"{len(reply.parameter_assignments)}"
            )
        self._store(draft, reply)

    def _store(self, draft: StatusDraft, reply: GetSuggestionsReply) -> None:
        suggestions = [
            *(draft.status.get("suggestions") or []),
            *(self._render(draft, reply, entry) for entry in reply.parameter_assignments),
        ]
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
        self, draft: StatusDraft, reply: GetSuggestionsReply, entry: ParameterAssignments
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
        if reply.early_stopping_rules:
            assignment["earlyStoppingRules"] = [
                {
                    "name": rule.name,
                    "value": rule.value,
                    "comparison": ComparisonType(rule.comparison).name.lower(),
                    "startStep": rule.start_step,
                }
                for rule in reply.early_stopping_rules
            ]
        return assignment

    async def _list_trials(self, experiment: Manifest, suggestion: Manifest) -> list[Manifest]:
        metadata = experiment["metadata"]
        found = await self._client.list(
            TRIALS,
            namespace=metadata["namespace"],
            label_selector=f"{EXPERIMENT_LABEL}={metadata['name']}",
        )
        # NB: the order is part of what a seeded search depends on.
        return own_trials(found.items, experiment=experiment, suggestion=suggestion)

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
