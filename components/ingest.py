"""Raw data becomes an immutable, hashed dataset commit."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def ingest_dataset(
    source: str,
    dataset: dsl.Output[dsl.Dataset],
    name: str = "dataset",
    kind: str = "image_classification",
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    max_corrupt_fraction: float = 0.0,
    max_examples_per_class: int = 0,
    seed: int = 0,
    store: str = "",
) -> NamedTuple("Outputs", [("version_hash", str), ("num_examples", int), ("num_labels", int)]):  # type: ignore[valid-type]  # KFP reads the functional form
    """Commit a source to the dataset store; unchanged data adds nothing.

    Not to be cached: the path of a source says nothing about its content.

    Args:
        source: Where the raw data lies, for example a folder with one sub-folder a class.
        dataset: The commit's manifest; its URI contains the content's hash.
        name: Name of the dataset in the store.
        kind: How the source is read (`image_classification` or
            `text_classification`).
        validation_fraction: Share of every class held out to tune on, in (0, 1).
        test_fraction: Share of every class held out to judge by, in (0, 1).
        max_corrupt_fraction: Share of unreadable files above which the source is refused.
        max_examples_per_class: Take only so many of each class, to try things out; 0: all.
        seed: Seed of the splits.
        store: URI of the dataset store; empty: below the pipeline root.
    """
    from kubeloop.components.descriptions import describe_commit
    from kubeloop.components.progress import ProgressPrinter
    from kubeloop.components.steps import open_step
    from kubeloop.datasets import IngestConfig, SplitConfig, ingest

    with open_step(dataset.uri) as step:
        config = IngestConfig(
            source=source,
            store=step.store("datasets", store),
            name=name,
            kind=kind,
            splits=SplitConfig(
                train=1 - validation_fraction - test_fraction,
                validation=validation_fraction,
                test=test_fraction,
                seed=seed,
            ),
            max_corrupt_fraction=max_corrupt_fraction,
            max_examples_per_class=max_examples_per_class,
            message=f"run {step.run_id}",
        )
        commit = ingest(config, on_progress=ProgressPrinter().ingest)
    dataset.uri = commit.uri
    dataset.metadata.update(describe_commit(commit))
    state = "new" if commit.is_new else "unchanged"
    print(f"{name}@{commit.version_hash[:12]} ({state}): {commit.num_examples} examples")
    return (commit.version_hash, commit.num_examples, len(commit.labels))
