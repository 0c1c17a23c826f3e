"""Raw data becomes an immutable, hashed dataset commit."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def ingest_dataset(
    source: str,
    dataset: dsl.Output[dsl.Dataset],
    name: str = "dataset",
    kind: str = "image-folder",
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    max_corrupt_fraction: float = 0.0,
    seed: int = 0,
    store: str = "",
) -> NamedTuple("Outputs", [("version_hash", str), ("num_examples", int), ("num_labels", int)]):  # type: ignore[valid-type]  # noqa: UP014  # KFP reads the functional form
    """Commit a source to the dataset store; unchanged data adds nothing.

    Not to be cached: the path of a source says nothing about its content.

    Args:
        source: Where the raw data lies, for example a folder with one sub-folder a class.
        dataset: The commit's manifest; its URI contains the content's hash.
        name: Name of the dataset in the store.
        kind: How the source is read (`image-folder`).
        validation_fraction: Share of every class held out to tune on, in (0, 1).
        test_fraction: Share of every class held out to judge by, in (0, 1).
        max_corrupt_fraction: Share of unreadable files above which the source is refused.
        seed: Seed of the splits.
        store: URI of the dataset store; empty: below the pipeline root.
    """
    from kubeloop.components.steps import open_step
    from kubeloop.datasets import IngestConfig, ingest

    with open_step(dataset.uri) as step:
        config = IngestConfig(
            source=source,
            store=step.store("datasets", store),
            name=name,
            kind=kind,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            max_corrupt_fraction=max_corrupt_fraction,
            seed=seed,
        )
        commit = ingest(config, on_progress=print)
    dataset.uri = commit.uri
    dataset.metadata.update(commit.provenance())
    print(f"{name}@{commit.version_hash}: {commit.num_examples} examples, {len(commit.labels)} labels")
    return (commit.version_hash, commit.num_examples, len(commit.labels))
