"""Experiments that are resumed, edited, deleted and repeated, with everything at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubeloop.local.api.resources import (
    EXPERIMENTS,
    PODS,
    PYTORCH_JOBS,
    SUGGESTIONS,
    TRIALS,
)
from kubeloop.local.operators.conditions import conditions_of
from kubeloop.testing.katib_lab import (
    Lab,
    build_experiment,
    condition_types,
    hang,
    play,
    print_accuracy,
)
from kubeloop.testing.waiting import wait_until


def test_the_suggestion_is_the_experiments_and_retires_with_it(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        experiment = build_experiment()
        experiment["metadata"] |= {"labels": {"team": "a"}, "annotations": {"note": "b"}}
        created = await lab.submit(experiment)
        await lab.wait_for("Succeeded")
        suggestion = await lab.wait_for("Succeeded", resource=SUGGESTIONS)

        assert suggestion["metadata"]["labels"] == {"team": "a"}
        assert suggestion["metadata"]["annotations"] == {"note": "b"}
        (owner,) = suggestion["metadata"]["ownerReferences"]
        assert owner["uid"] == created["metadata"]["uid"]
        assert suggestion["spec"] == {
            "algorithm": created["spec"]["algorithm"],
            "requests": 4,
            "resumePolicy": "Never",
        }
        assert suggestion["status"]["suggestionCount"] == 4
        last = suggestion["status"]["conditions"][-1]
        assert last["reason"] == "Experiment is succeeded"
        assert last["message"] == "Suggestion is succeeded, can't be restarted"
        assert dict(condition_types(suggestion)) == {
            "Created": "True",
            "DeploymentReady": "False",
            "Running": "False",
            "Succeeded": "True",
        }

    play(print_accuracy, scenario, folder=tmp_path)


@pytest.mark.parametrize("policy", ["LongRunning", "FromVolume"])
def test_raising_the_budget_resumes_a_finished_experiment(tmp_path: Path, policy: str) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(resumePolicy=policy))
        await lab.wait_for("Succeeded")
        await lab.settle()
        before = {trial["metadata"]["name"] for trial in await lab.list_all(TRIALS)}

        budget = {"spec": {"maxTrialCount": 7, "parallelTrialCount": 3}}
        await lab.client.patch(EXPERIMENTS, "digits", namespace="default", body=budget)
        await wait_until(lambda: lab.counts(trialsSucceeded=7))
        await lab.wait_for("Succeeded")

        after = {trial["metadata"]["name"] for trial in await lab.list_all(TRIALS)}
        assert before < after
        assert len(after) == 7
        assert condition_types(await lab.get()) == [
            ("Created", "True"),
            ("Restarting", "True"),
            ("Running", "False"),
            ("Succeeded", "True"),
        ]
        restarting = conditions_of(await lab.get())[1]
        assert restarting["reason"] == "ExperimentRestarting"
        assert restarting["message"] == "Experiment is restarted"

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_long_running_suggestion_outlives_its_experiment(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(resumePolicy="LongRunning"))
        await lab.wait_for("Succeeded")
        await lab.settle()

        assert condition_types(await lab.get(SUGGESTIONS))[-1] == ("Running", "True")

    play(print_accuracy, scenario, folder=tmp_path)


def test_lowering_the_parallel_count_deletes_the_newest_trials(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=3, maxTrialCount=6))
        await wait_until(lambda: lab.counts(trialsRunning=3))
        order = [s["name"] for s in (await lab.get(SUGGESTIONS))["status"]["suggestions"]]

        await lab.client.patch(
            EXPERIMENTS, "digits", namespace="default", body={"spec": {"parallelTrialCount": 1}}
        )
        await wait_until(lambda: lab.counts(trialsRunning=1, trials=1))
        await lab.settle()

        suggestion = await lab.get(SUGGESTIONS)
        assert [trial["metadata"]["name"] for trial in await lab.list_all(TRIALS)] == order[:1]
        assert suggestion["spec"]["requests"] == suggestion["status"]["suggestionCount"] == 1
        assert len(await lab.list_all(PYTORCH_JOBS)) == 1

    play(hang, scenario, folder=tmp_path)


def test_a_trial_that_somebody_deletes_is_made_again(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=2, maxTrialCount=2))
        await wait_until(lambda: lab.counts(trialsRunning=2))
        before = await lab.list_all(TRIALS)

        await lab.client.delete(TRIALS, before[0]["metadata"]["name"], namespace="default")

        async def is_back() -> bool:
            uids = {trial["metadata"]["uid"] for trial in await lab.list_all(TRIALS)}
            return len(uids) == 2 and before[0]["metadata"]["uid"] not in uids

        await wait_until(is_back)

    play(hang, scenario, folder=tmp_path)


def test_deleting_an_experiment_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment())
        await wait_until(lambda: lab.counts(trialsRunning=2))

        await lab.client.delete(EXPERIMENTS, "digits", namespace="default")

        async def is_empty() -> bool:
            kinds = (EXPERIMENTS, SUGGESTIONS, TRIALS, PYTORCH_JOBS, PODS)
            return not any([await lab.list_all(kind) for kind in kinds])

        await wait_until(is_empty)

    play(hang, scenario, folder=tmp_path)


def test_an_experiment_of_a_deleted_ones_name_starts_anew(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        for _ in range(2):
            created = await lab.submit(build_experiment(maxTrialCount=2))
            await lab.wait_for("Succeeded")
            await lab.client.delete(EXPERIMENTS, "digits", namespace="default")

            async def is_gone() -> bool:
                return not await lab.list_all(EXPERIMENTS)

            await wait_until(is_gone)
            assert created["metadata"]["uid"]

    play(print_accuracy, scenario, folder=tmp_path)


def test_a_seeded_search_gives_the_same_values_every_time(tmp_path: Path) -> None:
    found: list[list[str]] = []

    async def scenario(lab: Lab) -> None:
        algorithm = {
            "algorithmName": "tpe",
            "algorithmSettings": [{"name": "random_state", "value": "5"}],
        }
        await lab.submit(
            build_experiment(algorithm=algorithm, parallelTrialCount=1, maxTrialCount=6)
        )
        await lab.wait_for("Succeeded")
        suggestions = (await lab.get(SUGGESTIONS))["status"]["suggestions"]
        found.append([s["parameterAssignments"][0]["value"] for s in suggestions])

    for run in ("first", "second"):
        (tmp_path / run).mkdir()
        play(print_accuracy, scenario, folder=tmp_path / run)

    assert found[0] == found[1]
    assert len(set(found[0])) == 6
