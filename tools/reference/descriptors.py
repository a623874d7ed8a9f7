"""The protos as descriptors with their comments, by the compiler that generates the code."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2

SOURCE = Path(__file__).resolve().parents[2] / "protos"
_SERVICE, _MESSAGE, _ENUM = 6, 4, 5
# Where children of services, messages and enums are, as descriptor.proto numbers them.
_METHOD = _FIELD = _VALUE = 2
_NESTED_MESSAGE, _NESTED_ENUM = 3, 4
Where = tuple[int, ...]


@dataclass(frozen=True)
class File:
    """One file and where its comments are."""

    proto: descriptor_pb2.FileDescriptorProto
    comments: dict[Where, str]


@dataclass(frozen=True)
class Message:
    """A message, also one inside another."""

    name: str
    comment: str
    fields: tuple[tuple[Any, str], ...]


@dataclass(frozen=True)
class Enumeration:
    """An enum with its values: name, number, comment."""

    name: str
    comment: str
    values: tuple[tuple[str, int, str], ...]


@cache
def read() -> tuple[File, ...]:
    """Return every file of ours, in the order of their names."""
    # Imported late: it is the compiler itself.
    from grpc_tools import protoc

    names = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.glob("darkbloom/**/*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "set"
        arguments = [
            "protoc",
            f"-I{SOURCE}",
            f"-I{files('grpc_tools') / '_proto'}",
            "--include_source_info",
            f"--descriptor_set_out={target}",
            *names,
        ]
        if protoc.main(arguments) != 0:
            raise RuntimeError("the protos do not compile")
        found = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    return tuple(File(proto, _comments(proto)) for proto in found.file)


def messages(file: File) -> Iterator[Message]:
    """Yield messages, those inside others after them."""
    for index, message in enumerate(file.proto.message_type):
        yield from _message(file, message, (_MESSAGE, index), "")


def enums(file: File) -> Iterator[Enumeration]:
    """Yield enums, also those inside messages."""
    for index, one in enumerate(file.proto.enum_type):
        yield _enum(file, one, (_ENUM, index), "")
    for index, message in enumerate(file.proto.message_type):
        for inner, one in enumerate(message.enum_type):
            where = (_MESSAGE, index, _NESTED_ENUM, inner)
            yield _enum(file, one, where, f"{message.name}.")


def services(file: File) -> Iterator[tuple[str, str, Sequence[tuple[Any, str]]]]:
    """Yield name, comment and methods, each with its comment."""
    for index, service in enumerate(file.proto.service):
        where = (_SERVICE, index)
        methods = [
            (method, file.comments.get((*where, _METHOD, number), ""))
            for number, method in enumerate(service.method)
        ]
        yield service.name, file.comments.get(where, ""), methods


def _message(file: File, message: Any, where: Where, prefix: str) -> Iterator[Message]:
    fields = tuple(
        (field, file.comments.get((*where, _FIELD, number), ""))
        for number, field in enumerate(message.field)
    )
    yield Message(prefix + message.name, file.comments.get(where, ""), fields)
    for index, inner in enumerate(message.nested_type):
        if not inner.options.map_entry:
            name = f"{prefix}{message.name}."
            yield from _message(file, inner, (*where, _NESTED_MESSAGE, index), name)


def _enum(file: File, one: Any, where: Where, prefix: str) -> Enumeration:
    values = tuple(
        (value.name, value.number, file.comments.get((*where, _VALUE, number), ""))
        for number, value in enumerate(one.value)
    )
    return Enumeration(prefix + one.name, file.comments.get(where, ""), values)


def _comments(proto: descriptor_pb2.FileDescriptorProto) -> dict[Where, str]:
    return {
        tuple(place.path): " ".join(
            f"{place.leading_comments} {place.trailing_comments}".split()
        ).strip()
        for place in proto.source_code_info.location
    }
