"""Raw data becomes an immutable, hashed dataset commit."""

from typing import NamedTuple

from kfp import dsl

from kubeloop.components.steps import RUNTIME_IMAGE


@dsl.component(base_image=RUNTIME_IMAGE, install_kfp_package=False)
def ingest_dataset(
    source: str,
    dataset: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    name: str = "dataset",
    kind: str = "image_classification",
    options: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the bare type
    rules: dict = {},  # type: ignore[type-arg]  # noqa: B006  # KFP reads the bare type
    extend: bool = False,  # noqa: FBT001, FBT002  # KFP passes by name
    validation_fraction: float = 0.15,
    test_fraction: float = 0.15,
    max_corrupt_fraction: float = 0.0,
    max_examples_per_class: int = 0,
    seed: int = 0,
    store: str = "",
    run_id: str = "",  # noqa: ARG001  # a part of what the cache looks for
) -> NamedTuple("Outputs", [("version_hash", str), ("num_examples", int), ("num_labels", int)]):  # type: ignore[valid-type]  # KFP reads the functional form
    """Commit a source to the dataset store; unchanged data adds nothing.

    Not to be cached: the path of a source says nothing about its content. See `run_id`.

    Args:
        source: Where the raw data lies: a path, or an http(s), s3 or database URI; see the docs.
        dataset: The commit's manifest; its URI contains the content's hash.
        report: What is in the data, and what validation found.
        name: Name of the dataset in the store.
        kind: `image_classification`, `text_classification` or `tabular`.
        options: How the source is read, such as `text_column`, `label_column`, `encoding`.
        rules: Severity of validation rules by name: `error`, `warning`, `info` or `off`.
        extend: Commit the newest commit's data and the source's together.
        validation_fraction: Share of every class held out to tune on, in (0, 1).
        test_fraction: Share of every class held out to judge by, in (0, 1).
        max_corrupt_fraction: Share of unreadable files above which the source is refused.
        max_examples_per_class: Take only so many of each class, to try things out; 0: all.
        seed: Seed of the splits.
        store: URI of the dataset store; empty: below the pipeline root.
        run_id: Give `dsl.PIPELINE_JOB_ID_PLACEHOLDER`, and no run takes the step from the cache,
            not even one that asks for caching everywhere.
    """
    from kubeloop.components.ingesting import finish_ingest
    from kubeloop.components.progress import ProgressPrinter
    from kubeloop.components.steps import open_step, restore_integers
    from kubeloop.datasets import IngestConfig, ScanOptions, SplitConfig, ingest

    with open_step(dataset.uri) as step:
        config = IngestConfig(
            source=source,
            store=step.store("datasets", store),
            name=name,
            kind=kind,
            scan=ScanOptions.parse(restore_integers(options)),
            severities=rules,
            extend=extend,
            splits=SplitConfig.held_out(validation_fraction, test_fraction, seed=seed),
            max_corrupt_fraction=max_corrupt_fraction,
            max_examples_per_class=max_examples_per_class,
            message=f"run {step.run_id}",
        )
        commit = ingest(config, on_progress=ProgressPrinter().ingest)
        finish_ingest(commit, dataset=dataset, report=report)
    return (commit.version_hash, commit.num_examples, len(commit.labels))
