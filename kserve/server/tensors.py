"""V2 tensors between JSON or binary form and numpy arrays.

The binary form keeps the JSON part as it is and puts the tensors' bytes behind it, in order; BYTES
elements are prefixed by their length (four bytes, little endian).

Source: the Open Inference Protocol's binary tensor data extension; kserve protocol/infer_type.py.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from kubeloop.kserve.server.errors import InvalidRequestError

Array = npt.NDArray[Any]  # of any of the protocol's datatypes

_DTYPES: dict[str, npt.DTypeLike] = {
    "BOOL": np.bool_,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}
_LENGTH = struct.Struct("<I")


def find_dtype(datatype: str) -> np.dtype[Any]:
    """The numpy type of a V2 datatype.

    Raises:
        InvalidRequestError: There is no such datatype.
    """
    try:
        return np.dtype(_DTYPES[datatype])
    except KeyError:
        known = ", ".join(_DTYPES)
        raise InvalidRequestError(f"Unknown datatype {datatype!r}; known are: {known}.") from None


def find_datatype(array: Array) -> str:
    """The V2 datatype of an array; texts and objects are BYTES."""
    return _NAMES.get(array.dtype, "BYTES")


def parse_json_tensor(name: str, datatype: str, shape: Sequence[int], data: Any) -> Array:
    """Read a tensor whose data is JSON, nested or flat.

    Raises:
        InvalidRequestError: The data are not of the datatype, or not as many as the shape says.
    """
    dtype = find_dtype(datatype)
    if datatype == "FP16":
        raise InvalidRequestError(
            f"Input {name!r} is FP16, which JSON cannot carry; use the binary form."
        )
    if datatype == "BYTES":
        return _shape(name, _parse_texts(name, data), shape)
    try:
        raw = np.asarray(data) if data else np.empty(0, dtype=dtype)
        # Numbers become the datatype; a text or a ragged list never does.
        if raw.dtype.kind not in "biuf" or (raw.dtype.kind == "f" and dtype.kind in "iu"):
            raise InvalidRequestError(f"Input {name!r} has data that are no {datatype}.")
        if raw.dtype.kind in "iu" and dtype.kind in "iu":
            _check_range(name, raw, dtype)
        return _shape(name, raw.astype(dtype, copy=False), shape)
    except (ValueError, OverflowError, TypeError) as error:
        if isinstance(error, InvalidRequestError):
            raise
        raise InvalidRequestError(f"Input {name!r} cannot be read as {datatype}: {error}.") from (
            error
        )


def parse_binary_tensor(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Array:
    """Read a tensor from the bytes behind the JSON part.

    Raises:
        InvalidRequestError: The bytes are not as many as datatype and shape say.
    """
    dtype = find_dtype(datatype)
    if datatype == "BYTES":
        return _shape(name, _split_elements(name, data), shape)
    if len(data) % dtype.itemsize:
        raise InvalidRequestError(f"Input {name!r} has {len(data)} bytes, no multiple of its type.")
    return _shape(name, np.frombuffer(data, dtype=dtype.newbyteorder("<")), shape)


def render_json_data(array: Array) -> Any:
    """Flat data of a tensor, in a form that orjson renders with its numpy option."""
    if array.dtype.kind == "O":
        return [_as_text(item) for item in array.reshape(-1)]
    return np.ascontiguousarray(array).reshape(-1)


def render_binary_data(array: Array) -> bytes:
    """Bytes of a tensor for the binary form."""
    if array.dtype.kind != "O":
        return np.ascontiguousarray(array).tobytes()
    elements = (
        item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1)
    )
    return b"".join(_LENGTH.pack(len(element)) + element for element in elements)


def _shape(name: str, array: Array, shape: Sequence[int]) -> Array:
    if any(type(size) is not int or size < 0 for size in shape):
        raise InvalidRequestError(f"Input {name!r} has shape {list(shape)!r}; sizes are 0 or more.")
    if math.prod(shape) != array.size:
        raise InvalidRequestError(
            f"Input {name!r} has {array.size} elements, not the {math.prod(shape)} of its shape"
            f" {list(shape)!r}."
        )
    return array.reshape(tuple(shape))


def _check_range(name: str, raw: Array, dtype: np.dtype[Any]) -> None:
    limits = np.iinfo(dtype)
    if raw.size and (raw.min() < limits.min or raw.max() > limits.max):
        raise InvalidRequestError(
            f"Input {name!r} has values outside {limits.min} to {limits.max}, the range of"
            f" {_NAMES[dtype]}."
        )


def _parse_texts(name: str, data: Any) -> Array:
    flat = list(_flatten(data)) if isinstance(data, list) else [data]
    if not all(isinstance(item, str) for item in flat):
        raise InvalidRequestError(f"Input {name!r} is BYTES; its data are texts.")
    array = np.empty(len(flat), dtype=np.object_)
    array[:] = [item.encode() for item in flat]
    return array


def _flatten(data: list[Any]) -> list[Any]:
    flat: list[Any] = []
    for item in data:
        flat.extend(_flatten(item) if isinstance(item, list) else [item])
    return flat


def _split_elements(name: str, data: memoryview) -> Array:
    elements, position = [], 0
    while position + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        elements.append(bytes(data[position : position + length]))
        position += length
    if position != len(data):
        raise InvalidRequestError(f"Input {name!r} ends inside an element.")
    array = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array


def _as_text(item: Any) -> str:
    if not isinstance(item, bytes):
        return str(item)
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item.decode("latin-1")
