"""`kubeloop demo`: the whole loop on real scans, from PNG files to a served endpoint."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from kubeloop.cli.endpoints import find_endpoint
from kubeloop.cli.following import execute, report_outcome
from kubeloop.cli.lineage import print_tree, trace
from kubeloop.cli.options import DEFAULT_STATE, Session, StateOption, console, require
from kubeloop.cli.plane import ApiPortOption, GatewayPortOption, KfpPortOption, running
from kubeloop.errors import PermanentError
from kubeloop.pipelines.fast import read_fast_values
from kubeloop.pipelines.lineage import LineageGraph
from kubeloop.pipelines.metadata import TaskRecord
from kubeloop.pipelines.packages import PipelinePackage
from kubeloop.pipelines.runs import Run

ENDPOINT = "digits"
_MIN_ACCURACY = 0.97
_PACKAGES = ("kubeflow", "kserve", "minio", "optuna", "sklearn", "torch", "torchvision", "uvicorn")


@dataclass(kw_only=True)
class DemoReport:
    """What the demo shows; `to_json` is the file of `--report`."""

    test_accuracy: float
    per_class: list[dict[str, Any]]
    trials: list[dict[str, Any]]
    best_parameters: dict[str, Any]
    endpoint_url: str
    predictions: list[dict[str, str]]
    lineage: LineageGraph
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "test_accuracy": self.test_accuracy,
            "per_class": self.per_class,
            "trials": self.trials,
            "best_parameters": self.best_parameters,
            "endpoint_url": self.endpoint_url,
            "predictions": self.predictions,
            "lineage": [
                {"kind": node.kind, "id": node.id, "uri": node.uri, "digest": node.digest}
                for node in self.lineage.nodes.values()
            ],
            "seconds": {name: round(value, 2) for name, value in self.seconds.items()},
        }


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    *,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="A few images and one epoch: that all works, not how well."),
    ] = False,
    report: Annotated[
        Path | None, typer.Option(help="Write the results as JSON to this file.")
    ] = None,
    state: StateOption = DEFAULT_STATE,
    api_port: ApiPortOption = 0,
    kfp_port: KfpPortOption = 0,
    gateway_port: GatewayPortOption = 0,
) -> None:
    """Run the whole loop on 1,797 scans of handwritten digits that scikit-learn carries.

    Uses the running control plane, or starts one and stops it at the end; `kubeloop up` shows
    afterwards what it did.

    Examples:
        kubeloop demo

        kubeloop demo --fast

        kubeloop demo --report digits.json
    """
    from kubeloop.pipelines.packages import COMPILED, read_package
    from kubeloop.pipelines.runs import submit

    require(_PACKAGES, what="The demo", extra="all")
    started = time.monotonic()
    session = Session.open(state)
    was_running = session.state.is_running()
    with running(session.state, (api_port, kfp_port, gateway_port)):
        up_seconds = time.monotonic() - started
        folder = write_digits(session.state.root / "demo" / "digits")
        console.print(f"Digits as PNG files: {folder}", soft_wrap=True)
        client = session.connect_pipelines()
        package = read_package(COMPILED / "image_classification.yaml")
        parameters = choose_parameters(package, folder, fast=fast)
        final = execute(
            session,
            client,
            lambda: submit(client, package, parameters=parameters, run_name="digits demo"),
        )
        if code := report_outcome(final):
            raise typer.Exit(code)
        collected = collect(session, final, endpoint=str(parameters["endpoint_name"]))
        collected.seconds = {
            "control plane": up_seconds,
            **{t.name: t.seconds for t in final.tasks if t.seconds is not None and not t.is_group},
            "total": time.monotonic() - started,
        }
    if report:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(collected.to_json(), indent=2))
    show(collected)
    if not was_running:
        hint = f"\n`kubeloop up --state {session.state.root}` serves the endpoint again."
        console.print(hint, soft_wrap=True)


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's digits as PNG files, one folder a class; a folder that exists stays."""
    if folder.is_dir():
        return folder
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    draft = folder.with_name(f"{folder.name}.draft")
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = draft / str(label) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        # The scans have 17 levels of grey, 0 to 16.
        Image.fromarray((image * 255 / 16).round().astype("uint8")).save(path)
    draft.rename(folder)
    return folder


def choose_parameters(package: PipelinePackage, folder: Path, *, fast: bool) -> dict[str, Any]:
    """What the demo runs the pipeline with."""
    if fast:
        return {**read_fast_values(package.spec), "dataset_source": str(folder)}
    return {
        "dataset_source": str(folder),
        "dataset_name": "digits",
        "endpoint_name": ENDPOINT,
        "min_accuracy": _MIN_ACCURACY,
    }


def collect(session: Session, run: Run, *, endpoint: str) -> DemoReport:
    """Read the results from KFP's record of the run."""
    tasks = {task.name: task for task in session.connect_metadata().list_tasks(run.run_id)}
    evaluated, tuned = tasks["evaluate-model"], tasks["tune-hyperparameters"]
    if "probe-endpoint" not in tasks:
        scores = evaluated.output_parameters
        msg = (
            f"The gate kept the model back: test accuracy {scores['accuracy']}, where at least"
            f" {_MIN_ACCURACY} and the served model's {scores['champion_accuracy']} are asked for."
        )
        raise PermanentError(msg)
    return DemoReport(
        test_accuracy=float(evaluated.output_parameters["accuracy"]),
        per_class=read_per_class(evaluated),
        trials=json.loads(Path(_uri(tuned, "trials")).read_text()),
        best_parameters=tuned.output_parameters["best_parameters"],
        endpoint_url=find_endpoint(session, endpoint).url,
        predictions=json.loads(Path(_uri(tasks["probe-endpoint"], "predictions")).read_text()),
        lineage=trace(session, endpoint),
    )


def read_per_class(evaluated: TaskRecord) -> list[dict[str, Any]]:
    """Precision and recall a class, from the metrics that `evaluate_model` logged."""
    metadata = evaluated.output_artifacts["metrics"][0].metadata
    rows: dict[str, dict[str, Any]] = {}
    for name, value in metadata.items():
        measure, _, label = name.partition("/")
        if label:
            rows.setdefault(label, {"label": label})[measure] = value
    return list(rows.values())


def show(report: DemoReport) -> None:
    """Print the results."""
    _show_trials(report)
    _show_classes(report)
    console.print(f"\n[bold]Endpoint[/bold]  {report.endpoint_url}", soft_wrap=True)
    table = Table("predicted", "truth", "", box=None, pad_edge=False)
    for answer in report.predictions:
        right = answer["predicted"] == answer["expected"]
        table.add_row(
            answer["predicted"], answer["expected"], "" if right else Text("wrong", "red")
        )
    console.print(table)
    console.print("\n[bold]Lineage[/bold]")
    print_tree(report.lineage)
    console.print("\n[bold]Seconds[/bold]")
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, seconds in report.seconds.items():
        table.add_row(name, Text(f"{seconds:.1f}", justify="right"))
    console.print(table)


def _show_trials(report: DemoReport) -> None:
    console.print("\n[bold]Trials[/bold]")
    names = list(report.best_parameters)
    table = Table("trial", *names, "objective", "status", box=None, pad_edge=False)
    for trial in report.trials:
        best = trial["parameters"] == report.best_parameters
        objective = "" if trial["objective"] is None else f"{trial['objective']:.4f}"
        values = [_short(trial["parameters"].get(name)) for name in names]
        table.add_row(
            trial["name"].rsplit("-", 1)[-1],
            *values,
            objective,
            trial["status"],
            style="green" if best else "",
        )
    console.print(table)
    best_values = ", ".join(f"{k}={_short(v)}" for k, v in report.best_parameters.items())
    console.print(f"Best: {best_values}")


def _show_classes(report: DemoReport) -> None:
    console.print(f"\n[bold]Test accuracy[/bold]  {report.test_accuracy:.4f}")
    measures = [name for name in report.per_class[0] if name != "label"]
    table = Table("class", *measures, box=None, pad_edge=False)
    for row in report.per_class:
        table.add_row(row["label"], *(_short(row[measure]) for measure in measures))
    console.print(table)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _uri(task: TaskRecord, output: str) -> str:
    return task.output_artifacts[output][0].uri
