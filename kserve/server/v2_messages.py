"""Bodies of the V2 protocol: requests into arrays, arrays into replies.

Checks by hand what a schema library would check, because this runs for every request; the entries
of a refusal have the form that KServe's server (FastAPI) answers.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from kubeloop.kserve.server.errors import InvalidRequestError, SchemaError
from kubeloop.kserve.server.model import Arrays
from kubeloop.kserve.server.tensors import (
    find_datatype,
    parse_binary_tensor,
    parse_json_tensor,
    render_binary_data,
    render_json_data,
)

LENGTH_HEADER = "inference-header-content-length"

Json = Any  # any JSON value

_FIELDS: tuple[tuple[str, type, str], ...] = (
    ("name", str, "string"),
    ("shape", list, "list"),
    ("datatype", str, "string"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class InferRequest:
    """A V2 inference request."""

    id: str
    tensors: Arrays
    outputs: tuple[str, ...]
    """Names of the wanted outputs; empty: all."""
    binary_outputs: frozenset[str]
    """Wanted outputs that go behind the JSON part."""
    is_binary: bool
    """Whether outputs that say nothing else go behind the JSON part."""


def parse_infer_request(body: bytes, *, json_length: int | None = None) -> InferRequest:
    """Read a request.

    Args:
        body: The HTTP body.
        json_length: Length of the JSON part of the binary form; None: all of the body is JSON.

    Raises:
        InvalidRequestError: No JSON, or a tensor that is not what it says.
        SchemaError: The JSON is not of the protocol's schema.
    """
    document = _parse_json(body, json_length)
    if faults := list(_find_faults(document, is_binary=json_length is not None)):
        raise SchemaError(faults)
    outputs = document.get("outputs") or ()
    parameters = document.get("parameters") or {}
    position = len(body) if json_length is None else json_length
    return InferRequest(
        id=document.get("id") or str(uuid.uuid4()),
        tensors=_parse_tensors(document["inputs"], memoryview(body)[position:]),
        outputs=tuple(output["name"] for output in outputs),
        binary_outputs=frozenset(
            output["name"]
            for output in outputs
            if (output.get("parameters") or {}).get("binary_data")
        ),
        is_binary=bool(parameters.get("binary_data_output")),
    )


def render_infer_reply(
    request: InferRequest, model_name: str, outputs: Arrays
) -> tuple[bytes, int | None]:
    """Render a reply.

    Returns:
        The body, and the length of its JSON part when binary data follow it.
    """
    rendered, binary = [], []
    for name, array in outputs.items():
        item: dict[str, Json] = {
            "name": name,
            "shape": list(array.shape),
            "datatype": find_datatype(array),
        }
        if request.is_binary or name in request.binary_outputs:
            data = render_binary_data(array)
            item["parameters"] = {"binary_data_size": len(data)}
            binary.append(data)
        else:
            item["data"] = render_json_data(array)
        rendered.append(item)
    head = orjson.dumps(
        {
            "model_name": model_name,
            "model_version": None,
            "id": request.id,
            "parameters": None,
            "outputs": rendered,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    return (b"".join([head, *binary]), len(head)) if binary else (head, None)


def _parse_json(body: bytes, json_length: int | None) -> Mapping[str, Json]:
    if json_length is not None and not 0 < json_length <= len(body):
        raise InvalidRequestError(
            f"{LENGTH_HEADER} is {json_length}, but the body has {len(body)} bytes."
        )
    try:
        document = orjson.loads(body if json_length is None else body[:json_length])
    except orjson.JSONDecodeError as error:
        if json_length is not None:
            raise InvalidRequestError(f"Unrecognized request format: {error}") from error
        raise SchemaError(
            [
                {
                    "type": "json_invalid",
                    "loc": ["body", error.pos],
                    "msg": "JSON decode error",
                    "input": {},
                    "ctx": {"error": error.msg},
                }
            ]
        ) from error
    if not isinstance(document, dict):
        raise SchemaError([_fault("dict_type", [], "Input should be a valid dictionary", document)])
    return document


def _parse_tensors(inputs: list[dict[str, Json]], binary: memoryview) -> Arrays:
    tensors = {}
    for item in inputs:
        name, datatype, shape = item["name"], item["datatype"], item["shape"]
        if name in tensors:
            raise InvalidRequestError(f"Input {name!r} is given twice.")
        if "data" in item:
            tensors[name] = parse_json_tensor(name, datatype, shape, item["data"])
            continue
        size = (item.get("parameters") or {}).get("binary_data_size")
        if type(size) is not int or not 0 <= size <= len(binary):
            raise InvalidRequestError(
                f"Input {name!r} has neither data nor a binary_data_size within the body."
            )
        tensors[name] = parse_binary_tensor(name, datatype, shape, binary[:size])
        binary = binary[size:]
    if binary:
        raise InvalidRequestError(f"The body has {len(binary)} bytes that belong to no input.")
    return tensors


def _find_faults(document: Mapping[str, Json], *, is_binary: bool) -> Iterator[dict[str, Json]]:
    inputs = document.get("inputs")
    if inputs is None:
        yield _fault("missing", ["inputs"], "Field required", document)
    elif not isinstance(inputs, list):
        yield _fault("list_type", ["inputs"], "Input should be a valid list", inputs)
    else:
        for index, item in enumerate(inputs):
            yield from _find_input_faults(item, ["inputs", index], is_binary=is_binary)
    if not isinstance(document.get("id") or "", str):
        yield _fault("string_type", ["id"], "Input should be a valid string", document["id"])
    if not isinstance(document.get("parameters") or {}, dict):
        yield _fault(
            "dict_type",
            ["parameters"],
            "Input should be a valid dictionary",
            document["parameters"],
        )
    yield from _find_output_faults(document.get("outputs") or [])


def _find_input_faults(
    item: Json, place: list[str | int], *, is_binary: bool
) -> Iterator[dict[str, Json]]:
    if not isinstance(item, dict):
        yield _fault("model_type", place, "Input should be a valid dictionary", item)
        return
    for field, kind, word in _FIELDS:
        value = item.get(field)
        if value is None:
            yield _fault("missing", [*place, field], "Field required", item)
        elif not isinstance(value, kind):
            yield _fault(f"{word}_type", [*place, field], f"Input should be a valid {word}", value)
    if "data" not in item:
        if not is_binary:
            yield _fault("missing", [*place, "data"], "Field required", item)
    elif not isinstance(item["data"], list):
        yield _fault("list_type", [*place, "data"], "Input should be a valid list", item["data"])
    if not isinstance(item.get("parameters") or {}, dict):
        message = "Input should be a valid dictionary"
        yield _fault("dict_type", [*place, "parameters"], message, item["parameters"])


def _find_output_faults(outputs: Json) -> Iterator[dict[str, Json]]:
    if not isinstance(outputs, list):
        yield _fault("list_type", ["outputs"], "Input should be a valid list", outputs)
        return
    for index, item in enumerate(outputs):
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            yield _fault("missing", ["outputs", index, "name"], "Field required", item)
        elif not isinstance(item.get("parameters") or {}, dict):
            message = "Input should be a valid dictionary"
            yield _fault("dict_type", ["outputs", index, "parameters"], message, item["parameters"])


def _fault(kind: str, place: list[str | int], message: str, value: Json) -> dict[str, Json]:
    return {
        "type": kind,
        "loc": ["body", "InferenceRequest", *place],
        "msg": message,
        "input": value,
    }
