"""`kubeloop endpoints` and `kubeloop predict`: InferenceServices and calls to them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from kubeloop.cli.options import (
    DEFAULT_STATE,
    ContextOption,
    NamespaceOption,
    Output,
    OutputOption,
    Session,
    StateOption,
    console,
    print_json,
)
from kubeloop.errors import InputError, PermanentError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(endpoints)
    app.command()(predict)


def endpoints(
    name: Annotated[str, typer.Argument(help="An endpoint; else all are listed.")] = "",
    *,
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """List endpoints (InferenceServices): URL, readiness, model.

    Examples:
        kubeloop endpoints

        kubeloop endpoints digits --output json
    """
    session = Session.open(state, context=context, namespace=namespace)
    found = [find_endpoint(session, name)] if name else list_endpoints(session)
    if output is Output.JSON:
        described = [asdict(endpoint) for endpoint in found]
        print_json(described[0] if name else described)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("NAME", "READY", "URL", "MODEL", "MESSAGE"):
        table.add_column(column, overflow="fold")
    for endpoint in found:
        ready = Text("True", "green") if endpoint.is_ready else Text("False", "red")
        message = str(endpoint.failure or endpoint.message)
        table.add_row(endpoint.name, ready, endpoint.url, endpoint.model_uri, message)
    console.print(table if found else f"No endpoints in namespace {session.namespace}.")


def predict(
    name: Annotated[str, typer.Argument(help="Endpoint to call.", show_default=False)],
    files: Annotated[
        list[Path] | None, typer.Argument(help="Image files, one instance each.")
    ] = None,
    *,
    texts: Annotated[
        list[str] | None, typer.Option("--text", help="A text, one instance; may be repeated.")
    ] = None,
    body: Annotated[
        str, typer.Option("--json", help="A V1 request body, a file with one (@FILE), or - .")
    ] = "",
    state: StateOption = DEFAULT_STATE,
    context: ContextOption = "",
    namespace: NamespaceOption = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Send images, texts, or any V1 request body, to an endpoint and print its predictions.

    Examples:
        kubeloop predict digits scan-1.png scan-2.png

        kubeloop predict intents --text "book a flight to Oslo" --text "will it rain?"

        kubeloop predict digits --json '{"instances": [[[0, 12], [9, 3]]]}'
    """
    session = Session.open(state, context=context, namespace=namespace)
    instances = _read_instances(files or [], texts or [], body)
    endpoint = find_endpoint(session, name)
    if not endpoint.url:
        reason = endpoint.failure or endpoint.message or "it is starting"
        msg = f"Endpoint {name} is not ready: {reason}; see `kubeloop endpoints {name}`."
        raise PermanentError(msg)
    predictions = call(endpoint.url, name=name, instances=instances)
    if output is Output.JSON:
        print_json({"predictions": predictions})
        return
    inputs = [str(file) for file in files or []] or texts or []
    labels = inputs or [str(n) for n in range(len(predictions))]
    table = Table("INPUT", "PREDICTION", "PROBABILITY", box=None, pad_edge=False)
    for label, prediction in zip(labels, predictions, strict=True):
        table.add_row(Text(label), *render_prediction(prediction))
    console.print(table)


def list_endpoints(session: Session) -> list[Any]:
    """All endpoints of the session's namespace."""
    from kubernetes.client import CustomObjectsApi

    from kubeloop.kserve.endpoints import parse_endpoint

    found = CustomObjectsApi(session.kubernetes).list_namespaced_custom_object(
        "serving.kserve.io", "v1beta1", session.namespace, "inferenceservices"
    )
    return [parse_endpoint(item) for item in found["items"]]


def find_endpoint(session: Session, name: str) -> Any:
    """The endpoint of that name.

    Raises:
        InputError: There is none; the message lists those there are.
    """
    found = list_endpoints(session)
    for endpoint in found:
        if endpoint.name == name:
            return endpoint
    known = ", ".join(endpoint.name for endpoint in found) or "none"
    msg = f"No endpoint {name!r} in namespace {session.namespace}; there are: {known}."
    raise InputError(msg)


def call(url: str, *, name: str, instances: list[Any]) -> list[Any]:
    """Send instances to a V1 endpoint and return its predictions."""
    from kubeloop.kserve.client import PredictionClient

    with PredictionClient(url, name) as client:
        return client.predict(instances)


def render_prediction(prediction: Any) -> tuple[str, str]:
    """A prediction and its probability; the JSON of one that is not of our classifiers."""
    if isinstance(prediction, dict) and "label" in prediction:
        probability = (prediction.get("probabilities") or {}).get(prediction["label"])
        is_known = isinstance(probability, float)
        return str(prediction["label"]), f"{probability:.1%}" if is_known else ""
    return json.dumps(prediction), ""


def _read_instances(files: list[Path], texts: list[str], body: str) -> list[Any]:
    if [bool(files), bool(texts), bool(body)].count(True) != 1:
        msg = "Give image files, texts with --text, or a request body with --json: one of these."
        raise InputError(msg)
    if texts:
        return texts
    if files:
        from kubeloop.kserve.client import encode_image

        try:
            return [encode_image(file) for file in files]
        except OSError as error:
            msg = f"Failed to read image {error.filename}: {error.strerror}."
            raise InputError(msg) from error
    text = sys.stdin.read() if body == "-" else body
    try:
        if body.startswith("@"):
            text = Path(body[1:]).read_text()
        instances = json.loads(text)["instances"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"--json takes an object with a list `instances`: {error!r}."
        raise InputError(msg) from error
    if not isinstance(instances, list):
        msg = f"`instances` is a list, not {type(instances).__name__}."
        raise InputError(msg)
    return instances
