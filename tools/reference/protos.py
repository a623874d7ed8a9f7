"""`docs/reference/protos.md`: services, calls and messages."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2

from tools.reference.descriptors import File, Message, messages, read, services
from tools.reference.markdown import NOTE, cell, code, slug, table

_Field = descriptor_pb2.FieldDescriptorProto


def page() -> str:
    """Return the page."""
    by_package: dict[str, list[File]] = {}
    for file in read():
        by_package.setdefault(file.proto.package, []).append(file)
    parts = [
        "# Protos\n\n",
        f"{NOTE}\n\n",
        (
            "The contract between processes: every service, call and message under [`protos/`](../../protos). Rules that types cannot say are in [wire.md](../wire.md); "
            "enums are in [enums.md](enums.md). Who may call which method over mTLS is in [mtls.md](../mtls.md).\n\n"
        ),
        "".join(f"- [{name}](#{slug(name)})\n" for name in by_package),
        "\n",
    ]
    for package, files in by_package.items():
        parts.append(f"## {package}\n\n")
        for file in files:
            parts.extend(_services(file))
        for file in files:
            parts.extend(map(_message, messages(file)))
    return "".join(parts).rstrip("\n") + "\n"


def _services(file: File) -> list[str]:
    parts = []
    for name, comment, methods in services(file):
        rows = [(code(method.name), _arrow(method), cell(comment)) for method, comment in methods]
        head = ("Call", "Takes → gives", "")
        parts.append(f"### {name}\n\n{_sentence(comment)}{table(head, rows)}")
    return parts


def _message(message: Message) -> str:
    title = f"#### {message.name}\n\n{_sentence(message.comment)}"
    if not message.fields:
        return title
    rows = [(code(field.name), _type(field), cell(comment)) for field, comment in message.fields]
    return title + table(("Field", "Type", ""), rows)


def _arrow(method: Any) -> str:
    taken = ("stream " if method.client_streaming else "") + _short(method.input_type)
    given = ("stream " if method.server_streaming else "") + _short(method.output_type)
    return f"`{taken}` → `{given}`"


def _type(field: Any) -> str:
    if field.type in {_Field.TYPE_MESSAGE, _Field.TYPE_ENUM}:
        name = _short(field.type_name)
    else:
        name = _Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == _Field.LABEL_REPEATED:
        # The compiler names the entries of a map after its field.
        entry = "".join(word.capitalize() for word in field.name.split("_")) + "Entry"
        return "map" if name.endswith(f".{entry}") or name == entry else f"repeated `{name}`"
    return f"optional `{name}`" if field.proto3_optional else f"`{name}`"


def _short(name: str) -> str:
    return name.removeprefix(".").removeprefix("darkbloom.")


def _sentence(comment: str) -> str:
    return f"{' '.join(comment.split())}\n\n" if comment else ""
