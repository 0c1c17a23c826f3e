"""Retraining: new data joins a dataset, and a new model replaces the served one if it deserves to.

An intent classifier is served; a table arrives with texts of a new label, or more of old ones.
ingest (the dataset's newest commit and the new data together) → train → evaluate → gate → deploy →
probe → picture of the lineage. On the test split of the new commit the gate asks for two things: on
the labels that both know the new model is no worse than the served one (`min_gain` asks for more),
and on those that only the new one knows it is accurate enough. Else the served model stays. Where
none is served yet, all labels are new.
"""

from kfp import dsl

from kubeloop.components.ingest import ingest_dataset
from kubeloop.components.train import train_model
from kubeloop.pipelines.serving import add_evaluation, add_serving, give_object_store

FAST = {
    "dataset_name": "texts-fast",
    "endpoint_name": "text-classifier-fast",
    "max_examples_per_class": 20,
    "epochs": 1,
    "min_new_accuracy": 0.0,
    "min_gain": -1.0,
    "variant_tolerance": 1.0,
}
"""`kubeloop run --fast`: every step at work within seconds, beside the real data and endpoint."""


@dsl.pipeline(
    name="retrain",
    description="Extend a dataset, train anew, and replace the served model by a better one.",
)
def retrain(
    new_data: str,
    dataset_name: str = "texts",
    endpoint_name: str = "text-classifier",
    kind: str = "text_classification",
    program: str = "text",
    code: str = "",
    options: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP takes the bare class
    hyperparameters: dict = {},  # type: ignore[type-arg]  # noqa: B006
    min_gain: float = 0.0,
    min_new_accuracy: float = 0.8,
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
    """Retrain on what there is and what is new.

    Args:
        new_data: Where the new raw data lies; a path or a URI.
        dataset_name: Name of the dataset in the store; what it holds stays.
        endpoint_name: Name of the InferenceService; where there is none, it is created.
        kind: Kind of the dataset, such as `text_classification` or `image_classification`.
        program: Training program: `text` or `image`.
        code: Archive of a program of your own (`kubeloop code publish`), run in place of ours.
        options: How the source is read, such as `text_column`, `label_column`, `encoding`.
        hyperparameters: Hyperparameters, such as those that tuning found for the served model.
        min_gain: Accuracy on the labels that both models know by which the new one must exceed the
            served one; 0: be as good.
        min_new_accuracy: Accuracy on the labels that only the new model knows, in [0, 1].
        epochs: Epochs of the training.
        variants: Other forms of the model that its package also holds: `onnx`, and `int8`, which
            is quantised.
        serve_variant: The one that is judged and served, whether or not `variants` names it; empty:
            the original.
        variant_tolerance: Accuracy on the validation split that a variant may lose; beyond it the
            training fails.
        num_workers: Replicas of the training job.
        cpu: CPU of a replica, as a Kubernetes quantity.
        num_gpus: GPUs of a replica.
        job_options: What else the training job is to have, such as node selectors, volumes or a
            queue; see `train_model`.
        max_examples_per_class: New examples taken of each class; 0: all.
        num_probes: Test examples sent to the endpoint at the end.
        service_account: Whose credentials download the model; empty: the namespace's default.
        seed: Seed of splits and training.
        fast: What `kubeloop run --fast` takes for these parameters; no step reads it.
    """
    ingest = ingest_dataset(
        source=new_data,
        name=dataset_name,
        kind=kind,
        options=options,
        extend=True,
        max_examples_per_class=max_examples_per_class,
        seed=seed,
        run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    )
    # What the dataset holds may have changed since the last run.
    ingest.set_caching_options(False)
    dataset = ingest.outputs["dataset"]

    train = train_model(
        dataset=dataset,
        hyperparameters=hyperparameters,
        epochs=epochs,
        program=program,
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
    steps = [ingest, train, *judged]

    scores = judged[-1].outputs
    with (
        dsl.If(scores["beats_champion"] == True, name="no-worse-than-served"),  # noqa: E712
        dsl.If(scores["new_labels_accuracy"] >= min_new_accuracy, name="good-on-new"),
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
