"""Property lists: what is plain is read, what is ambiguous or could expand is not even parsed."""

import plistlib
from datetime import datetime
from typing import Any

import pytest
from darkbloom_edge.apple.plist import MAX_DEPTH, parse_plist
from darkbloom_edge.errors import MalformedError
from hypothesis import given
from hypothesis import strategies as st

HEAD = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b'<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" '
    b'"http://www.apple.com/DTDs/PropertyList-1.0.dtd">\n'
)


def listed(inside: str, head: bytes = HEAD) -> bytes:
    return head + f'<plist version="1.0">{inside}</plist>'.encode()


VALUES: Any = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=20)
    | st.text(
        st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"),
        max_size=20,
    ),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abcXYZ_", max_size=8), VALUES, max_size=5))
def test_what_apple_writes_is_read_back(value: dict[str, Any]) -> None:
    assert parse_plist(plistlib.dumps(value)) == value


def test_all_kinds_of_values_are_read() -> None:
    value = {"a": True, "b": [1, "<&>", b"\x00"], "c": {"d": datetime(2026, 1, 31, 12)}}  # noqa: DTZ001 - plist dates have no zone
    assert parse_plist(plistlib.dumps(value)) == value
    assert parse_plist(b"<plist><dict/></plist>") == {}
    assert parse_plist(listed("<dict><key>r</key><real>1.5</real></dict>")) == {"r": 1.5}


BOMB = (
    b'<!DOCTYPE plist [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    b"<plist><dict><key>x</key><string>&b;</string></dict></plist>"
)
EXTERNAL = (
    b'<!DOCTYPE plist [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
    b"<plist><dict><key>x</key><string>&x;</string></dict></plist>"
)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"bplist00", id="binary"),
        pytest.param(plistlib.dumps({"a": 1}, fmt=plistlib.FMT_BINARY), id="a real binary one"),
        pytest.param(BOMB, id="entities that grow"),
        pytest.param(EXTERNAL, id="an entity that reads a file"),
        pytest.param(listed("<dict/>", HEAD.replace(b"www.apple", b"www.evil")), id="other dtd"),
        pytest.param(listed("<dict><key>a</key><string>&#60;</string></dict>"), id="reference"),
        pytest.param(listed("<dict/><dict/>"), id="two roots"),
        pytest.param(listed("<true/>"), id="no dictionary"),
        pytest.param(listed("<array/>"), id="an array"),
        pytest.param(listed("<key>a</key>"), id="a bare key"),
        pytest.param(listed("<dict><key>a</key><true/><key>a</key><false/></dict>"), id="twice"),
        pytest.param(listed("<dict><key>a</key></dict>"), id="a key without value"),
        pytest.param(listed("<dict><true/></dict>"), id="a value without key"),
        pytest.param(listed("<dict><a/></dict>"), id="an unknown element"),
        pytest.param(listed('<dict x="1"/>'), id="an attribute"),
        pytest.param(listed('<dict version="1.0"/>'), id="a version in the wrong place"),
        pytest.param(listed("<dict><!-- a --></dict>"), id="a comment"),
        pytest.param(listed("<dict><![CDATA[x]]></dict>"), id="character data"),
        pytest.param(listed("<dict><?php x?></dict>"), id="an instruction"),
        pytest.param(listed("<dict>text</dict>"), id="stray text"),
        pytest.param(listed("<dict/>") + b"x", id="trailing text"),
        pytest.param(listed("<dict/>") + listed("<dict/>"), id="two documents"),
        pytest.param(b"\xef\xbb\xbf" + listed("<dict/>"), id="a byte order mark"),
        pytest.param(listed("<dict/>").decode().encode("utf-16"), id="utf-16"),
        pytest.param(listed("<dict/>", b'<?xml version="1.0" encoding="UTF-7"?>'), id="utf-7"),
        pytest.param(listed("<dict><key>a</key><string><b/></string></dict>"), id="nested text"),
        pytest.param(listed("<dict></array>"), id="crossed"),
        pytest.param(listed("<dict>"), id="not closed"),
        pytest.param(listed("<dict><key>a</key><integer>x</integer></dict>"), id="no number"),
        pytest.param(listed("<dict><key>a</key><integer>1 2</integer></dict>"), id="two numbers"),
        pytest.param(listed("<dict><key>a</key><date>2026-13-01T00:00:00Z</date></dict>"), id="13"),
        pytest.param(
            listed(f"<dict><key>a</key><integer>{'9' * 5000}</integer></dict>"), id="huge number"
        ),
        pytest.param(
            listed(
                "<dict><key>a</key>" + "<array>" * MAX_DEPTH + "</array>" * MAX_DEPTH + "</dict>"
            ),
            id="deep",
        ),
        pytest.param(
            listed("<dict><key>a</key><array>" + "<true/>" * 4096 + "</array></dict>"), id="long"
        ),
        pytest.param(listed("<dict/>" + " " * 131_072), id="large"),
    ],
)
def test_anything_else_is_refused_by_one_error(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_plist(data)


@given(
    st.lists(
        st.sampled_from(
            [
                "<dict>",
                "</dict>",
                "<key>",
                "</key>",
                "a",
                "<true/>",
                "<array>",
                "</array>",
                "<integer>",
                "</integer>",
                "1",
                "<data>",
                "</data>",
                "<plist>",
                "</plist>",
                "&amp;",
                "<date>",
                "</date>",
                "<real>",
                "</real>",
                "<string/>",
                "<key/>",
                "<dict/>",
                "-",
                "<!",
                "<?",
            ]
        ),
        max_size=14,
    )
)
def test_no_sequence_of_tokens_crashes_the_reader(tokens: list[str]) -> None:
    for data in (
        "".join(tokens).encode(),
        listed("".join(tokens)),
        listed(f"<dict>{''.join(tokens)}</dict>"),
    ):
        try:
            assert isinstance(parse_plist(data), dict)
        except MalformedError:
            continue
