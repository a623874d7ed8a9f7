"""Images and videos: what their bytes say, and how each dialect brings them into the box."""

import base64
import json
from typing import Any

import pytest
from darkbloom_edge.dialects.chat import CHAT, prompt_bound
from darkbloom_edge.dialects.chat_request import Lowered
from darkbloom_edge.dialects.dialect import Dialect
from darkbloom_edge.dialects.messages import MESSAGES
from darkbloom_edge.dialects.responses import RESPONSES
from darkbloom_edge.errors import MalformedError, RequestError
from darkbloom_edge.media import (
    IMAGE_BOUND_TOKENS,
    MAX_FILE_BYTES,
    MAX_MEDIA,
    VIDEO_BOUND_TOKENS,
    MediaKind,
    decode,
    inspect,
    part_of,
)
from darkbloom_edge.request import canonical_bytes, parse_canonical
from hypothesis import given
from hypothesis import strategies as st

from tests.media import (
    HEIC,
    MOV,
    MP4,
    WEBM,
    data_url,
    gif,
    image_part,
    jpeg,
    png,
    png_header,
    seen,
    webp,
)

KNOWN = {
    "png": (png(), "image/png", 3, 2),
    "jpeg": (jpeg(), "image/jpeg", 5, 4),
    "jpeg behind metadata": (jpeg(metadata=60), "image/jpeg", 5, 4),
    "gif": (gif(screen=(9, 5)), "image/gif", 9, 6),
    "gif on a small screen": (gif(4000, 3000), "image/gif", 4000, 3000),
    "webp lossy": (webp("VP8 "), "image/webp", 9, 8),
    "webp lossless": (webp("VP8L"), "image/webp", 9, 8),
    "webp extended": (webp("VP8X", 70_000, 1000), "image/webp", 70_000, 1000),
    "mp4": (MP4, "video/mp4", 0, 0),
    "mov": (MOV, "video/quicktime", 0, 0),
    "webm": (WEBM, "video/webm", 0, 0),
}


def chat(messages: list[dict[str, Any]], **more: Any) -> Lowered:
    return CHAT.lower(json.dumps({"model": "m", "messages": messages, **more}).encode())


def canonical(lowered: Lowered) -> list[dict[str, Any]]:
    """Return the messages as a provider reads them out of the box."""
    request = lowered.to_request("b", 5, "2026-01-01")
    return parse_canonical(canonical_bytes(request)).messages


@pytest.mark.parametrize("name", KNOWN)
def test_a_file_is_what_its_first_bytes_say(name: str) -> None:
    data, media_type, width, height = KNOWN[name]
    found = inspect(data)
    assert (found.media_type, found.width, found.height) == (media_type, width, height)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        b"<svg width='1' height='1'/>",
        HEIC,
        png()[:20],
        jpeg()[:6],
        jpeg(metadata=2000),
        b"\xff\xd8" + b"\xff" * 4_000_000,
        gif()[:8],
        gif()[:75],
        gif(20_000, 20_000),
        b"GIF89a\x07\0\x06\0\0\0\0;",
        b"GIF89a\x07\0\x06\0\0\0\0\x21\xfe" + b"\x01x" * 100_000,
        webp("VP8X")[:24],
        png(0, 0),
        png_header(20_000, 20_000),
        png() + b"\0" * MAX_FILE_BYTES,
    ],
    ids=range(17),
)
def test_what_is_no_such_file_cut_short_or_too_large_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        inspect(data)


@given(st.binary(max_size=64), st.sampled_from([found[0][:14] for found in KNOWN.values()]))
def test_no_bytes_break_the_look(tail: bytes, head: bytes) -> None:
    try:
        found = inspect(head + tail)
    except MalformedError:
        return
    assert found.kind is MediaKind.VIDEO or found.width * found.height > 0


@pytest.mark.parametrize("text", ["", "=", "YQ", "YR==", "YQ==\n", "Y Q==", "é", "-_-_"])
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(MalformedError):
        decode(text)


def test_an_image_stays_in_its_place_among_the_texts() -> None:
    content = [
        {"type": "text", "text": "a"},
        {"type": "text", "text": "b"},
        image_part(data_url(png(), "image/jpeg")),
        {"type": "video_url", "video_url": {"url": data_url(MP4, "video/mp4")}},
        {"type": "text", "text": "c"},
    ]
    lowered = chat([{"role": "user", "content": content}])

    assert lowered.has_media
    assert lowered.needs == {"vision"}
    assert canonical(lowered)[0]["content"] == [
        {"type": "text", "text": "ab"},
        # What the caller said about it does not count.
        {
            "type": "image",
            "media_type": "image/png",
            "width": 3,
            "height": 2,
            "data": base64.b64encode(png()).decode(),
        },
        {"type": "video", "media_type": "video/mp4", "data": base64.b64encode(MP4).decode()},
        {"type": "text", "text": "c"},
    ]


def test_messages_and_responses_say_the_same() -> None:
    text = base64.b64encode(png()).decode()
    expected = canonical(chat(seen(data_url(png()))))
    blocks = [
        {"type": "text", "text": "what is this?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": text}},
    ]
    turn = {"role": "user", "content": blocks}
    body = {"model": "m", "max_tokens": 5, "messages": [turn]}
    parts = [
        {"type": "input_text", "text": "what is this?"},
        {"type": "input_image", "image_url": data_url(png()), "detail": "auto"},
    ]
    asked = {"model": "m", "input": [{"role": "user", "content": parts}]}

    assert canonical(MESSAGES.lower(json.dumps(body).encode())) == expected
    assert canonical(RESPONSES.lower(json.dumps(asked).encode())) == expected


def test_only_chat_leaves_addresses_to_be_fetched() -> None:
    url = "https://example.com/a.png?secret=1"
    lowered = chat(seen(url))
    source = {"type": "url", "url": url}
    turn = {"role": "user", "content": [{"type": "image", "source": source}]}
    message = {"model": "m", "max_tokens": 5, "messages": [turn]}
    part = {"type": "input_image", "image_url": url}
    response = {"model": "m", "input": [{"role": "user", "content": [part]}]}

    (remote,) = lowered.remote
    assert (remote.url, remote.kind) == (url, MediaKind.IMAGE)
    assert remote.param == "messages[0].content[1].image_url.url"
    assert "secret" not in repr(lowered) + repr(remote) + repr(lowered.fields)
    refused: list[tuple[Dialect, dict[str, Any], str]] = [
        (MESSAGES, message, "messages[0].content[0].source.url"),
        (RESPONSES, response, "input[0].content[0].image_url"),
    ]
    for dialect, body, param in refused:
        with pytest.raises(RequestError) as raised:
            dialect.lower(json.dumps(body).encode())
        assert raised.value.param == param
        assert "secret" not in raised.value.message


def test_what_was_fetched_takes_the_place_of_its_address() -> None:
    lowered = chat(seen("https://example.com/a.png"))
    with pytest.raises(RequestError, match="nothing is fetched here"):
        lowered.to_request("b", 5, "2026-01-01")

    filled = lowered.with_media([part_of(png(), MediaKind.IMAGE)])

    assert filled.remote == ()
    assert canonical(filled) == canonical(chat(seen(data_url(png()))))
    # The hold was for whatever would come.
    assert prompt_bound(lowered) >= prompt_bound(filled)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        (image_part(""), "image_url.url"),
        (image_part("http://example.com/a.png"), "image_url.url"),
        (image_part("file:///etc/passwd"), "image_url.url"),
        (image_part("https://example.com/" + "a" * 5000), "image_url.url"),
        (image_part("data:image/png,abc"), "image_url.url"),
        (image_part("data:image/png;base64,!"), "image_url.url"),
        (image_part(data_url(b"no image")), "image_url.url"),
        (image_part(data_url(MP4)), "image_url.url"),
        (image_part(data_url(png_header(20_000, 20_000))), "image_url.url"),
        ({"type": "video_url", "video_url": {"url": data_url(png())}}, "video_url.url"),
        ({"type": "image_url"}, "image_url.url"),
        ({"type": "image_url", "image_url": {"url": 7}}, "image_url.url"),
        ({"type": "remote_image", "remote": 1}, "type"),
        (part_of(png(), MediaKind.IMAGE), "type"),
    ],
    ids=range(14),
)
def test_a_part_that_is_none_is_refused_by_name(part: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        chat([{"role": "user", "content": [part]}])
    assert raised.value.status == 400
    assert raised.value.param == f"messages[0].content[0].{param}"


@pytest.mark.parametrize("role", ["system", "assistant", "tool"])
def test_only_the_user_shows_anything(role: str) -> None:
    turn = {"role": role, "content": [image_part(data_url(png()))], "tool_call_id": "c"}
    with pytest.raises(RequestError, match="belong into messages of the user"):
        chat([turn])


def test_too_many_media_or_too_many_bytes_of_them_are_refused() -> None:
    small, large = image_part(data_url(png())), image_part(data_url(png() + b"\0" * 4_000_000))
    with pytest.raises(RequestError, match="media"):
        chat([{"role": "user", "content": [small] * (MAX_MEDIA + 1)}])
    with pytest.raises(RequestError, match="bytes of media"):
        chat([{"role": "user", "content": [large] * 3}])
    with pytest.raises(RequestError, match="urls"):
        chat([{"role": "user", "content": [image_part("https://example.com/")] * 17}])


@pytest.mark.parametrize(
    "change",
    [
        {"width": 4},
        {"media_type": "image/jpeg"},
        {"type": "video"},
        {"data": base64.b64encode(gif()).decode()},
        {"data": base64.b64encode(png()).decode().rstrip("=") + "\n"},
        {"data": 7},
        {"more": 1},
    ],
    ids=range(7),
)
def test_a_provider_reads_no_part_that_says_something_else_than_its_bytes(
    change: dict[str, Any],
) -> None:
    request = chat(seen(data_url(png()))).to_request("b", 5, "2026-01-01")
    content = request.messages[0]["content"]
    request.messages[0]["content"] = [content[0], {**content[1], **change}]
    with pytest.raises(MalformedError) as raised:
        parse_canonical(canonical_bytes(request))
    assert raised.value.field == "messages[0].content[1]"


def test_bounds_follow_the_pixels_up_to_a_most() -> None:
    def bound(*parts: dict[str, Any]) -> int:
        return prompt_bound(chat([{"role": "user", "content": list(parts)}]))

    nothing = prompt_bound(chat([{"role": "user", "content": ""}]))
    small, large = (
        image_part(data_url(one)) for one in (png(), png_header(10_000, 10_000) + b"\0" * 10)
    )
    assert bound(small) - nothing == 1024 + 1
    assert bound(large) - nothing == IMAGE_BOUND_TOKENS
    assert bound(small, large) == bound(small) + bound(large) - nothing
    film = {"type": "video_url", "video_url": {"url": data_url(MP4)}}
    assert bound(film) - nothing == VIDEO_BOUND_TOKENS
