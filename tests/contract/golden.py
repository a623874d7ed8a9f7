"""Every message of the protos, filled by rule, and its bytes on the wire.

`python -m tests.contract.golden` writes `golden.json` anew after a wanted change of the contract.
"""

import json
from importlib import import_module
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden.json")
_DEPTH = 3


def files() -> list[FileDescriptor]:
    """Return the descriptor of every proto file."""
    sources = sorted((ROOT / "protos").glob("darkbloom/*/v1/*.proto"))
    names = [str(p.relative_to(ROOT / "protos").with_suffix("")).replace("/", ".") for p in sources]
    return [import_module(f"{name}_pb2").DESCRIPTOR for name in names]


def wire() -> dict[str, str]:
    """Return the hex bytes of one filled message of each type."""
    found: dict[str, str] = {}
    for file in files():
        for descriptor in file.message_types_by_name.values():
            message = filled(descriptor, _DEPTH)
            found[descriptor.full_name] = message.SerializeToString(deterministic=True).hex()
    return found


def filled(descriptor: Descriptor, depth: int) -> Message:
    """Build a message whose every field has a value that its number decides."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        _fill(message, field, depth)
    return message


def _fill(message: Message, field: FieldDescriptor, depth: int) -> None:
    if _is_map(field):
        value = field.message_type.fields_by_name["value"]
        if value.message_type is None:
            getattr(message, field.name)[f"key{field.number}"] = _scalar(value)
        return
    if field.message_type is not None:
        if depth == 0:
            return
        inner = filled(field.message_type, depth - 1)
        if field.is_repeated:
            getattr(message, field.name).append(inner)
        else:
            getattr(message, field.name).CopyFrom(inner)
        return
    if field.is_repeated:
        getattr(message, field.name).append(_scalar(field))
    else:
        setattr(message, field.name, _scalar(field))


def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and kind.GetOptions().map_entry


def _scalar(field: FieldDescriptor) -> object:
    number = field.number
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return b"bytes%d" % number
        case FieldDescriptor.CPPTYPE_STRING:
            return f"text{number}"
        case FieldDescriptor.CPPTYPE_BOOL:
            return True
        case FieldDescriptor.CPPTYPE_ENUM:
            return field.enum_type.values[-1].number
        case FieldDescriptor.CPPTYPE_DOUBLE | FieldDescriptor.CPPTYPE_FLOAT:
            return number + 0.5
        case _:
            return number + 1000


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(wire(), indent=1, sort_keys=True) + "\n")
