"""Runs experiments: keeps as many trials going as are allowed, and says when it is over.

A pass reads trials and suggestion, and goes by nothing else: an assignment without a trial gets
one, a slot without an assignment asks the suggestion for one more.

Source: katib v0.19 `experiment/experiment_controller.go`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from kubeloop.errors import AlreadyExistsError, InputError, InvalidError, NotFoundError
from kubeloop.local.api.resources import (
    CONFIG_MAPS,
    EXPERIMENTS,
    SUGGESTIONS,
    TRIALS,
    Resource,
)
from kubeloop.local.client import Client, Manifest
from kubeloop.local.operators.conditions import (
    FALSE,
    Clock,
    conditions_of,
    is_condition_true,
    utc_now,
)
from kubeloop.local.operators.controller import Reconciler, Request, Result, controller_owner
from kubeloop.local.operators.katib.drafts import StatusDraft
from kubeloop.local.operators.katib.experiment_status import (
    SUGGESTION_END_REACHED,
    Counts,
    TrialFacts,
    conclude,
    count_trials,
    fail,
    has_active_trials,
    has_new_budget,
    is_over,
    restart,
    succeed,
    update_optimal_trial,
)
from kubeloop.local.operators.katib.templates import read_template
from kubeloop.local.operators.katib.terms import (
    DEPLOYMENT_READY,
    EXPERIMENT_FINALIZER,
    FAILED,
    FROM_VOLUME,
    LONG_RUNNING,
    RUNNING,
    SUCCEEDED,
)
from kubeloop.local.operators.katib.trial_lists import TrialLists
from kubeloop.local.operators.katib.trials import (
    build_suggestion,
    build_trial,
    has_ended,
    list_assignments,
)
from kubeloop.local.operators.pod_states import is_being_deleted

_RETIRED = {
    "Never": "Suggestion is succeeded, can't be restarted",
    FROM_VOLUME: "Suggestion is succeeded, suggestion volume is not deleted, can be restarted",
}


class ExperimentReconciler(Reconciler):
    """Drives Experiments."""

    resource: ClassVar[Resource] = EXPERIMENTS
    owns: ClassVar[tuple[Resource, ...]] = (TRIALS, SUGGESTIONS)

    def __init__(self, client: Client, *, clock: Clock = utc_now) -> None:
        self._client = client
        self._clock = clock
        self._trials = TrialLists(client, TrialFacts.of)

    async def reconcile(self, request: Request) -> Result:
        """Bring one experiment forward by one pass."""
        try:
            stored = await self._client.get(EXPERIMENTS, request.name, namespace=request.namespace)
        except NotFoundError:
            self._trials.forget(request)
            return Result()
        if is_being_deleted(stored):
            await self._let_go(stored)
            return Result()
        stored = await self._hold(stored)
        draft = StatusDraft.of(stored, now=self._clock())
        draft.start(reason="ExperimentCreated", message="Experiment is created")
        draft.status.setdefault("currentOptimalTrial", {"observation": {}})
        if is_over(draft) and has_new_budget(draft):
            restart(draft)
            await self._revive_suggestion(draft)
        if not is_over(draft) or has_active_trials(draft):
            await self._advance(draft)
        if is_over(draft):
            await self._retire_suggestion(draft)
        if draft.is_changed:
            await self._client.replace_status(draft.render())
        if is_over(draft) and not has_active_trials(draft):
            self._trials.forget(request)
        return Result()

    async def _advance(self, draft: StatusDraft) -> None:
        suggestion = await self._find_suggestion(draft.stored)
        trials = await self._list_trials(draft.stored, suggestion)
        counts = count_trials(draft, trials)
        best = update_optimal_trial(draft, trials)
        if is_over(draft):
            return
        if trials:
            conclude(draft, counts, best=best)
        if not is_over(draft):
            await self._fill_slots(draft, trials, suggestion, counts=counts)

    async def _fill_slots(
        self,
        draft: StatusDraft,
        trials: Sequence[TrialFacts],
        suggestion: Manifest | None,
        *,
        counts: Counts,
    ) -> None:
        if suggestion is not None and is_condition_true(conditions_of(suggestion), FAILED):
            fail(draft, "Suggestion has failed")
            return
        spec = draft.stored["spec"]
        parallel, maximum = spec["parallelTrialCount"], spec.get("maxTrialCount")
        if counts.active > parallel:
            namespace = draft.stored["metadata"]["namespace"]
            await self._delete_newest(
                trials, suggestion, namespace=namespace, num=counts.active - parallel
            )
            return
        wanted = parallel if maximum is None else min(parallel, maximum - counts.completed)
        num_new = wanted - counts.active
        if num_new <= 0:
            return
        requests = counts.total + num_new - sum(trial.is_silent for trial in trials)
        if suggestion is None:
            await self._client.create(build_suggestion(draft.stored, requests=requests))
            return
        if suggestion["spec"].get("requests") != requests and not has_ended(suggestion):
            suggestion["spec"]["requests"] = requests
            suggestion = await self._client.replace(suggestion)
        names = {trial.name for trial in trials}
        waiting = [a for a in list_assignments(suggestion) if a["name"] not in names]
        await self._create_trials(draft, waiting[:num_new])
        if has_ended(suggestion) and not waiting and not counts.active:
            succeed(draft, SUGGESTION_END_REACHED, "suggestion service has reached the end")

    async def _create_trials(self, draft: StatusDraft, assignments: Sequence[Manifest]) -> None:
        if not assignments:
            return
        try:
            text = await self._read_template(draft.stored)
            trials = [
                build_trial(draft.stored, assignment, template_text=text)
                for assignment in assignments
            ]
        except InputError as error:  # upstream would try again for ever
            fail(draft, f"Experiment has failed because no trial can be rendered: {error}")
            return
        for trial in trials:
            try:
                await self._client.create(trial)
            except AlreadyExistsError:  # in deletion, or created by a pass that was cut short
                continue
            except InvalidError as error:  # such as a name that an algorithm made up
                fail(draft, f"Experiment has failed because no trial can be created: {error}")
                return

    async def _read_template(self, experiment: Manifest) -> str:
        template = experiment["spec"]["trialTemplate"]
        source = template.get("configMap")
        config_map = None
        if source:
            try:
                config_map = await self._client.get(
                    CONFIG_MAPS, source["configMapName"], namespace=source["configMapNamespace"]
                )
            except NotFoundError:
                config_map = None
        return read_template(template, lambda _namespace, _name: config_map)

    async def _delete_newest(
        self,
        trials: Sequence[TrialFacts],
        suggestion: Manifest | None,
        *,
        namespace: str,
        num: int,
    ) -> None:
        """Delete the newest active trials, and their assignments with them."""
        names = [trial.name for trial in trials if trial.is_active][-num:]
        if suggestion is not None:
            kept = [entry for entry in list_assignments(suggestion) if entry["name"] not in names]
            suggestion["spec"]["requests"] = len(kept)
            suggestion = await self._client.replace(suggestion)
            suggestion["status"] = {
                **(suggestion.get("status") or {}),
                "suggestions": kept,
                "suggestionCount": len(kept),
            }
            await self._client.replace_status(suggestion)
        for name in names:
            with suppress(NotFoundError):
                await self._client.delete(TRIALS, name, namespace=namespace)

    async def _list_trials(
        self, experiment: Manifest, suggestion: Manifest | None
    ) -> list[TrialFacts]:
        """The experiment's own trials, oldest first, without those that are being deleted."""
        trials = await self._trials.read(experiment, suggestion=suggestion)
        return [trial for trial in trials if not trial.is_being_deleted]

    async def _find_suggestion(self, experiment: Manifest) -> Manifest | None:
        metadata = experiment["metadata"]
        try:
            suggestion = await self._client.get(
                SUGGESTIONS, metadata["name"], namespace=metadata["namespace"]
            )
        except NotFoundError:
            return None
        owner = controller_owner(suggestion)
        return suggestion if owner and owner["uid"] == metadata["uid"] else None

    async def _retire_suggestion(self, draft: StatusDraft) -> None:
        policy = draft.stored["spec"].get("resumePolicy")
        suggestion = await self._find_suggestion(draft.stored)
        if policy == LONG_RUNNING or suggestion is None:
            return
        end = StatusDraft.of(suggestion, now=self._clock())
        if end.says(SUCCEEDED) or end.says(FAILED):
            return
        end.write(
            DEPLOYMENT_READY,
            reason="DeploymentNotReady",
            message="Deployment is not ready",
            status=FALSE,
        )
        end.finish(
            SUCCEEDED,
            reason="Experiment is succeeded",
            message=_RETIRED.get(policy or "Never", _RETIRED["Never"]),
        )
        await self._client.replace_status(end.render())

    async def _revive_suggestion(self, draft: StatusDraft) -> None:
        suggestion = await self._find_suggestion(draft.stored)
        if draft.stored["spec"].get("resumePolicy") != FROM_VOLUME or suggestion is None:
            return
        again = StatusDraft.of(suggestion, now=self._clock())
        if not again.says(SUCCEEDED):
            return
        message = "Experiment is restarting"
        again.drop(SUCCEEDED)
        again.status.pop("completionTime", None)
        again.write(RUNNING, reason=message, message=message, status=FALSE)
        await self._client.replace_status(again.render())

    async def _hold(self, experiment: Manifest) -> Manifest:
        finalizers = experiment["metadata"].get("finalizers") or []
        if EXPERIMENT_FINALIZER in finalizers:
            return experiment
        metadata = {
            **experiment["metadata"],
            "finalizers": [*finalizers, EXPERIMENT_FINALIZER],
        }
        return await self._client.replace({**experiment, "metadata": metadata})

    async def _let_go(self, experiment: Manifest) -> None:
        finalizers = experiment["metadata"].get("finalizers") or []
        if EXPERIMENT_FINALIZER in finalizers:
            left = [finalizer for finalizer in finalizers if finalizer != EXPERIMENT_FINALIZER]
            metadata = {**experiment["metadata"], "finalizers": left}
            await self._client.replace({**experiment, "metadata": metadata})
