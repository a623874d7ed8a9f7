"""The bytes of the contract do not change unless somebody means it."""

import json

from google.protobuf.message_factory import GetMessageClass

from tests.contract.golden import GOLDEN, files, wire


def test_every_message_has_the_bytes_it_had() -> None:
    golden = json.loads(GOLDEN.read_text())
    now = wire()
    assert set(now) == set(golden), "run `python -m tests.contract.golden`"
    changed = [name for name in now if now[name] != golden[name]]
    assert changed == []


def test_the_bytes_are_read_back_whole() -> None:
    golden = json.loads(GOLDEN.read_text())
    for file in files():
        for descriptor in file.message_types_by_name.values():
            data = bytes.fromhex(golden[descriptor.full_name])
            message = GetMessageClass(descriptor)()
            message.ParseFromString(data)
            assert message.SerializeToString(deterministic=True) == data
