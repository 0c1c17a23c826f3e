"""Text classification, from a table of texts to a served endpoint.

ingest → tune → train → evaluate → gate → deploy → probe → picture of the lineage, as for images.
Where a label says that a text belongs to no other (`oos`), tuning looks at the other texts alone.
"""

from kfp import dsl

from kubeloop.components.ingest import ingest_dataset
from kubeloop.components.train import train_model
from kubeloop.components.tune import tune_hyperparameters
from kubeloop.pipelines.serving import add_evaluation, add_serving, give_object_store

SEARCH_SPACE = {
    "learning_rate": {"type": "float", "min": 0.001, "max": 0.01, "log": True},
    "dropout": {"type": "float", "min": 0.1, "max": 0.6},
    "label_smoothing": {"type": "float", "min": 0.0, "max": 0.2},
}
"""What the text program is tuned over, unless the run says otherwise."""

FAST = {
    "dataset_name": "texts-fast",
    "endpoint_name": "text-classifier-fast",
    "max_examples_per_class": 20,
    "max_trials": 2,
    "trial_epochs": 1,
    "epochs": 1,
    "min_accuracy": 0.0,
    "min_gain": -1.0,
    "variant_tolerance": 1.0,
}
"""`kubeloop run --fast`: every step at work within seconds, beside the real data and endpoint."""


@dsl.pipeline(
    name="text-classification",
    description="Ingest labelled texts, tune, train, evaluate, and deploy what is good enough.",
)
def text_classification(
    dataset_source: str,
    dataset_name: str = "texts",
    endpoint_name: str = "text-classifier",
    min_accuracy: float = 0.8,
    min_gain: float = 0.0,
    options: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP takes the bare class
    search_space: dict = SEARCH_SPACE,  # type: ignore[type-arg]
    hyperparameters: dict = {},  # type: ignore[type-arg]  # noqa: B006
    code: str = "",
    objective_metric: str = "val_in_scope_accuracy",
    algorithm: str = "tpe",
    max_trials: int = 6,
    parallel_trials: int = 2,
    trial_epochs: int = 5,
    epochs: int = 8,
    variants: list = [],  # type: ignore[type-arg]  # noqa: B006
    serve_variant: str = "",
    variant_tolerance: float = 0.01,
    num_workers: int = 1,
    cpu: str = "2",
    num_gpus: int = 0,
    job_options: dict = {},  # type: ignore[type-arg]  # noqa: B006
    max_examples_per_class: int = 0,
    num_probes: int = 10,
    service_account: str = "",
    seed: int = 0,
    fast: dict = FAST,  # type: ignore[type-arg]  # noqa: ARG001  # read by `run --fast`
) -> None:
    """Run the whole loop.

    Args:
        dataset_source: Table of texts and labels: CSV, JSON Lines or Parquet; a path or a URI.
        dataset_name: Name of the dataset in the store.
        endpoint_name: Name of the InferenceService.
        min_accuracy: Accuracy on the test split from which the model is deployed, in [0, 1].
        min_gain: Accuracy by which it must exceed the model that the endpoint serves; 0: be as
            good.
        options: How the source is read, such as `text_column`, `label_column`, `encoding`.
        search_space: Hyperparameters to tune.
        hyperparameters: Hyperparameters that are not tuned.
        code: Archive of a program of your own (`kubeloop code publish`), run in place of ours; its
            hyperparameters are other ones.
        objective_metric: What is tuned for; without a label `oos` it equals `val_accuracy`.
        algorithm: Katib algorithm.
        max_trials: Trials in all.
        parallel_trials: Trials at a time.
        trial_epochs: Epochs of a trial.
        epochs: Epochs of the training with the best hyperparameters.
        variants: Other forms of the model that its package also holds: `onnx`, and `int8`, which
            is quantised.
        serve_variant: The one that is judged and served, whether or not `variants` names it; empty:
            the original.
        variant_tolerance: Accuracy on the validation split that a variant may lose; beyond it the
            training fails.
        num_workers: Replicas of the training job.
        cpu: CPU of a replica, as a Kubernetes quantity.
        num_gpus: GPUs of a replica.
        job_options: What else the training jobs are to have, such as node selectors, volumes or a
            queue; see `train_model`.
        max_examples_per_class: Texts taken of each class; 0: all.
        num_probes: Test texts sent to the endpoint at the end.
        service_account: Whose credentials download the model; empty: the namespace's default.
        seed: Seed of splits, search and training.
        fast: What `kubeloop run --fast` takes for these parameters; no step reads it.
    """
    ingest = ingest_dataset(
        source=dataset_source,
        name=dataset_name,
        kind="text_classification",
        options=options,
        max_examples_per_class=max_examples_per_class,
        seed=seed,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    # The path of a source says nothing about its content. A run may turn the cache on for all its
    # tasks, so that the task's own setting is not enough.
    ingest.set_caching_options(False)
    dataset = ingest.outputs["dataset"]

    tune = tune_hyperparameters(
        dataset=dataset,
        search_space=search_space,
        hyperparameters=hyperparameters,
        epochs=trial_epochs,
        program="text",
        code=code,
        objective_metric=objective_metric,
        algorithm=algorithm,
        max_trial_count=max_trials,
        parallel_trial_count=parallel_trials,
        # The best parameters are trained anew on the whole budget.
        keep_models="none",
        num_gpus=num_gpus,
        job_options=job_options,
        seed=seed,
    )
    train = train_model(
        dataset=dataset,
        hyperparameters=hyperparameters,
        best_parameters=tune.outputs["best_parameters"],
        trial=tune.outputs["best_trial"],
        epochs=epochs,
        program="text",
        code=code,
        variants=variants,
        serve_variant=serve_variant,
        variant_tolerance=variant_tolerance,
        num_workers=num_workers,
        cpu=cpu,
        num_gpus=num_gpus,
        job_options=job_options,
        seed=seed,
    )
    judged = add_evaluation(
        dataset=dataset,
        train=train,
        variant=serve_variant,
        endpoint_name=endpoint_name,
        min_gain=min_gain,
    )
    steps = [ingest, tune, train, *judged]

    scores = judged[-1].outputs
    with (
        dsl.If(scores["accuracy"] >= min_accuracy, name="accurate-enough"),
        dsl.If(scores["beats_champion"] == True, name="no-worse-than-served"),  # noqa: E712
    ):
        steps += add_serving(
            dataset=dataset,
            model=train.outputs["model"],
            variant=serve_variant,
            endpoint_name=endpoint_name,
            num_probes=num_probes,
            service_account=service_account,
        )
    give_object_store(steps)
