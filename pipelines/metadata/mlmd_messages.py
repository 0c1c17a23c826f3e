"""The messages of ML Metadata's gRPC service that are needed to read KFP's record.

The package `ml-metadata` does not install beside the protobuf that Kubeflow's SDKs need, so the
messages are built here from their names and field numbers, in a descriptor pool of their own, where
they do not clash with that package.

Source: google/ml-metadata, ml_metadata/proto/metadata_store.proto and metadata_store_service.proto.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from kubeloop.optional_imports import import_from_extra

with import_from_extra("mlmd", why="Reading ML Metadata needs grpcio and protobuf"):
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

SERVICE = "ml_metadata.MetadataStoreService"

_PACKAGE = "ml_metadata"
_FILE = "kubeloop/ml_metadata.proto"
_ENUMS = {
    "EventType": ("UNKNOWN", "DECLARED_OUTPUT", "DECLARED_INPUT", "INPUT", "OUTPUT"),
    "ExecutionState": ("UNKNOWN", "NEW", "RUNNING", "COMPLETE", "FAILED", "CACHED", "CANCELED"),
}
# Message → field → (number, type); "[]" repeats, "{}" maps text to it, "|" is one of a choice.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Value": {
        "int_value": (1, "int64|"),
        "double_value": (2, "double|"),
        "string_value": (3, "string|"),
        "struct_value": (4, "google.protobuf.Struct|"),
    },
    "Artifact": {
        "id": (1, "int64"),
        "type_id": (2, "int64"),
        "uri": (3, "string"),
        "properties": (4, "Value{}"),
        "custom_properties": (5, "Value{}"),
        "state": (6, "int32"),
        "name": (7, "string"),
        "type": (8, "string"),
        "create_time_since_epoch": (9, "int64"),
        "last_update_time_since_epoch": (10, "int64"),
    },
    "Execution": {
        "id": (1, "int64"),
        "type_id": (2, "int64"),
        "last_known_state": (3, "ExecutionState"),
        "properties": (4, "Value{}"),
        "custom_properties": (5, "Value{}"),
        "name": (6, "string"),
        "type": (7, "string"),
        "create_time_since_epoch": (8, "int64"),
        "last_update_time_since_epoch": (9, "int64"),
    },
    "Context": {
        "id": (1, "int64"),
        "type_id": (2, "int64"),
        "name": (3, "string"),
        "properties": (4, "Value{}"),
        "custom_properties": (5, "Value{}"),
        "type": (6, "string"),
        "create_time_since_epoch": (7, "int64"),
        "last_update_time_since_epoch": (8, "int64"),
    },
    "PathStep": {"index": (1, "int64|"), "key": (2, "string|")},
    "Path": {"steps": (1, "PathStep[]")},
    "Event": {
        "artifact_id": (1, "int64"),
        "execution_id": (2, "int64"),
        "path": (3, "Path"),
        "type": (4, "EventType"),
        "milliseconds_since_epoch": (5, "int64"),
    },
    "ListOperationOptions": {
        "max_result_size": (1, "int32"),
        "next_page_token": (3, "string"),
        "filter_query": (4, "string"),
    },
    "GetArtifactsRequest": {"options": (1, "ListOperationOptions")},
    "GetArtifactsResponse": {"artifacts": (1, "Artifact[]"), "next_page_token": (2, "string")},
    "GetArtifactsByIDRequest": {"artifact_ids": (1, "int64[]")},
    "GetArtifactsByIDResponse": {"artifacts": (1, "Artifact[]")},
    "GetArtifactsByURIRequest": {"uris": (2, "string[]")},
    "GetArtifactsByURIResponse": {"artifacts": (1, "Artifact[]")},
    "GetExecutionsByIDRequest": {"execution_ids": (1, "int64[]")},
    "GetExecutionsByIDResponse": {"executions": (1, "Execution[]")},
    "GetExecutionsByContextRequest": {
        "context_id": (1, "int64"),
        "options": (2, "ListOperationOptions"),
    },
    "GetExecutionsByContextResponse": {
        "executions": (1, "Execution[]"),
        "next_page_token": (2, "string"),
    },
    "GetEventsByExecutionIDsRequest": {"execution_ids": (1, "int64[]")},
    "GetEventsByExecutionIDsResponse": {"events": (1, "Event[]")},
    "GetEventsByArtifactIDsRequest": {"artifact_ids": (1, "int64[]")},
    "GetEventsByArtifactIDsResponse": {"events": (1, "Event[]")},
    "GetContextByTypeAndNameRequest": {"type_name": (1, "string"), "context_name": (2, "string")},
    "GetContextByTypeAndNameResponse": {"context": (1, "Context")},
    "GetContextsByExecutionRequest": {"execution_id": (1, "int64")},
    "GetContextsByExecutionResponse": {"contexts": (1, "Context[]")},
    "GetParentContextsByContextRequest": {"context_id": (1, "int64")},
    "GetParentContextsByContextResponse": {"contexts": (1, "Context[]")},
}
METHODS = tuple(name.removesuffix("Request") for name in _MESSAGES if name.endswith("Request"))
"""Methods of the service whose messages are known here."""

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "double": _Field.TYPE_DOUBLE,
    "string": _Field.TYPE_STRING,
}


def message(name: str) -> Any:  # Any: classes made at run time have no types
    """The class of a message."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{_PACKAGE}.{name}"))


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(struct_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name=_FILE, package=_PACKAGE, syntax="proto2", dependency=[struct_pb2.DESCRIPTOR.name]
    )
    for name, values in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            # Values of enums share the package's names.
            enum.value.add(name=f"{name}_{value}", number=number)
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(described, field, number=number, kind=kind)
    pool.AddSerializedFile(file.SerializeToString())
    return pool


def _add_field(
    described: descriptor_pb2.DescriptorProto, name: str, *, number: int, kind: str
) -> None:
    base = kind.rstrip("[]{}|")
    field = described.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind.endswith("|"):
        if not described.oneof_decl:
            described.oneof_decl.add(name="value")
        field.oneof_index = 0
    if kind.endswith(("[]", "{}")):
        field.label = _Field.LABEL_REPEATED
    if kind.endswith("{}"):
        base = _add_entry(described, name, base)
    if base in _SCALARS:
        field.type = _SCALARS[base]
    else:
        field.type = _Field.TYPE_ENUM if base in _ENUMS else _Field.TYPE_MESSAGE
        field.type_name = f".{base}" if "." in base else f".{_PACKAGE}.{base}"


def _add_entry(described: descriptor_pb2.DescriptorProto, field: str, value: str) -> str:
    """Add the message that a map's entries are, and name it."""
    name = "".join(word.capitalize() for word in field.split("_")) + "Entry"
    entry = described.nested_type.add(name=name)
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=_Field.LABEL_OPTIONAL,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.{value}",
    )
    return f"{_PACKAGE}.{described.name}.{name}"
