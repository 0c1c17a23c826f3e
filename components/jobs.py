"""Training jobs and searches of a step: named so that its retry, and nothing else, finds them.

The name is derived from everything that the job or the search is made of. Iterations of a loop that
differ in their resources alone have different jobs, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from kubeloop.components.steps import Step, find_namespace, restore_integers
from kubeloop.datasets.stores import open_store
from kubeloop.errors import InputError
from kubeloop.training.jobs import PyTorchJobBuilder, TrainingJobConfig

if TYPE_CHECKING:
    from kubeloop.katib.tuning import TuningConfig

_UNNAMED = "unnamed"


def merge_hyperparameters(
    given: Mapping[str, Any], best: Mapping[str, Any], *, epochs: int, seed: int
) -> dict[str, Any]:  # Any: JSON
    """Return what a program is given: what tuning found best goes before what was given.

    Raises:
        InputError: `epochs` or `seed` are given, which are parameters of their own.
    """
    own = {"epochs": epochs, "seed": seed}
    for name, value in own.items():
        if given.get(name, value) != value:
            raise InputError(
                f"hyperparameters has {name!r}, {given[name]!r}, which is a parameter of its own"
                f" here, {value!r}; give it there."
            )
    return restore_integers({**given, **best, **own})


def list_variants(variants: Sequence[str], served: str) -> tuple[str, ...]:
    """Return the variants of a model, that which will be served among them."""
    return tuple(dict.fromkeys([*variants, *([served] if served else [])]))


def describe_job(step: Step, **settings: Any) -> TrainingJobConfig:  # Any: fields of the job
    """Return a job of this step's run, without a name of its own yet."""
    return TrainingJobConfig(
        name=_UNNAMED,
        namespace=find_namespace(),
        labels=step.labels,
        run_id=step.run_id,
        **settings,
    )


def place_job(step: Step, job: TrainingJobConfig, *, store: str) -> TrainingJobConfig:
    """Name a job, and give its model and its checkpoints a place below the store of drafts."""
    name = step.object_name({"job": PyTorchJobBuilder().render(job)["spec"]})
    draft = f"{step.store('jobs', store)}/{name}"
    return replace(
        job, name=name, model_uri=f"{draft}/model", checkpoint_uri=f"{draft}/checkpoints"
    )


def drop_checkpoints(job: TrainingJobConfig) -> None:
    """Delete what a training that has succeeded would have gone on from; its model stays."""
    open_store(job.checkpoint_uri).clear()


def place_search(step: Step, search: TuningConfig, *, store: str) -> TuningConfig:
    """Name a search, and give the models of its trials a place below the store of drafts."""
    settings = {f.name: getattr(search, f.name) for f in fields(search) if f.name != "job"}
    name = step.object_name({**settings, "job": PyTorchJobBuilder().render(search.job)["spec"]})
    return replace(
        search,
        job=replace(search.job, name=name),
        trial_models=f"{step.store('jobs', store)}/{name}",
        model_store=step.store("models", store),
    )
