"""Population based training: trials go on from what their parents left."""

from __future__ import annotations

from pathlib import Path

from kubeloop.local.api.resources import PERSISTENT_VOLUME_CLAIMS, TRIALS
from kubeloop.local.client import Manifest
from kubeloop.testing.katib_lab import Exit, Lab, build_experiment, learning_rate_of, play

PARENT_LABEL = "pbt.suggestion.katib.kubeflow.org/parent"
SETTINGS = {
    "suggestion_trial_dir": "/opt/katib/data",
    "n_population": "5",
    "truncation_threshold": "0.4",
    "random_state": "1",
}


def build_population(*, num_trials: int) -> Manifest:
    return build_experiment(
        algorithm={
            "algorithmName": "pbt",
            "algorithmSettings": [{"name": k, "value": v} for k, v in SETTINGS.items()],
        },
        resumePolicy="FromVolume",
        parallelTrialCount=5,
        maxTrialCount=num_trials,
    )


def test_a_trial_finds_what_its_parent_left(tmp_path: Path) -> None:
    volume = tmp_path / "claims" / "default" / "digits-pbt" / "digits"
    found: dict[str, str] = {}

    def program(pod: Manifest) -> Exit:
        name = pod["metadata"]["labels"]["katib.kubeflow.org/trial"]
        folder = volume / name
        found[name] = (folder / "state").read_text() if (folder / "state").exists() else ""
        (folder / "state").write_text(f"{found[name]}/{name}")
        mounts.append(list(pod["spec"]["containers"][0]["volumeMounts"]))
        return Exit(log=f"accuracy={learning_rate_of(pod)}\n")

    mounts: list[list[Manifest]] = []

    async def scenario(lab: Lab) -> None:
        await lab.submit(build_population(num_trials=10))
        experiment = await lab.wait_for("Succeeded")
        trials = {trial["metadata"]["name"]: trial for trial in await lab.list_all(TRIALS)}
        parents = {
            name: trial["metadata"]["labels"].get(PARENT_LABEL) for name, trial in trials.items()
        }

        assert experiment["status"]["trialsSucceeded"] == 10
        assert sum(parent is None for parent in parents.values()) == 5
        for name, parent in parents.items():
            assert found[name] == (f"{found[parent]}/{parent}" if parent else "")
        (claim,) = await lab.list_all(PERSISTENT_VOLUME_CLAIMS)
        assert claim["metadata"]["name"] == "digits-pbt"
        assert claim["metadata"]["ownerReferences"][0]["kind"] == "Suggestion"
        assert all(
            mount == [{"name": "suggestion-volume", "mountPath": "/opt/katib/data", "subPath": sub}]
            for mount in mounts
            for sub in [mount[0]["subPath"]]
        )
        assert {mount[0]["subPath"] for mount in mounts} == {f"digits/{name}" for name in trials}

    play(program, scenario, folder=tmp_path)


def test_a_search_without_a_volume_makes_none(tmp_path: Path) -> None:
    async def scenario(lab: Lab) -> None:
        await lab.submit(build_experiment(parallelTrialCount=1, maxTrialCount=1))
        await lab.wait_for("Succeeded")

        assert await lab.list_all(PERSISTENT_VOLUME_CLAIMS) == []
        assert seen == [[]]

    seen: list[list[Manifest]] = []

    def program(pod: Manifest) -> Exit:
        seen.append(pod["spec"].get("volumes") or [])
        return Exit(log="accuracy=1\n")

    play(program, scenario, folder=tmp_path)
