"""Which addresses may be asked for media, and which never."""

from ipaddress import ip_network

import pytest
from darkbloom_gateway.media.addresses import (
    UnusableUrlError,
    is_blocked,
    is_public,
    redirected,
    target_of,
)

NEAR = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1::808:808",
    "168.63.129.16",
    "64:ff9b::a83f:8110",
    "3fff::1",
    "2001:0:7f00:1::",
    "",
    "localhost",
    "2130706433",
]


@pytest.mark.parametrize("address", NEAR)
def test_nothing_near_us_is_public_whatever_it_is_wrapped_in(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:2800:21f::1", "64:ff9b::808:808"]
)
def test_the_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://example.com/a.png",
        "ftp://example.com/a.png",
        "file:///etc/passwd",
        "//example.com/a.png",
        "https://",
        "https:///a.png",
        "https://example.com:444/",
        "https://example.com:80/",
        "https://example.com:port/",
        "https://example.com:99999/",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://example.com/a b",
        "https://example.com/a\r\nhost: other",
        "https://exa\tmple.com/",
        "https://[::1/",
        "https://[v1.é:x]/a",
        "https://[1:2]/a",
        "https://[fe80::1%25eth0]/a",
        "https://example.com/\ud800",
        "https://\ud800.example/",
        "https://。/",
        "https://" + "a" * 64 + ".example/",
        "https://example.com/" + "a" * 5000,
    ],
    ids=range(25),
)
def test_what_is_no_plain_https_address_is_not_asked(url: str) -> None:
    with pytest.raises(UnusableUrlError):
        target_of(url)


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://Example.COM./a.png?x=1#part", "example.com", "/a.png?x=1"),
        ("HTTPS://example.com", "example.com", "/"),
        ("https://example.com:443/ä?q=ü", "example.com", "/%C3%A4?q=%C3%BC"),
        ("https://bücher.example/a%20b", "xn--bcher-kva.example", "/a%20b"),
        ("https://[2606:2800:21F:0::1]/", "2606:2800:21f::1", "/"),
        ("https://evil.example。/", "evil.example", "/"),
        ("https://evil。example./", "evil.example", "/"),
    ],
    ids=range(7),
)
def test_an_address_is_read_in_one_way(url: str, host: str, path: str) -> None:
    target = target_of(url)
    assert (target.host, target.path) == (host, path)
    assert host not in repr(target)


def test_a_redirect_is_read_like_any_address() -> None:
    here = target_of("https://example.com/a/b.png")
    assert redirected(here, "../c.png").url == "https://example.com/c.png"
    assert redirected(here, "https://other.example/").host == "other.example"
    for location in ("http://example.com/", "https://u@example.com/", "https://[::1"):
        with pytest.raises(UnusableUrlError):
            redirected(here, location)


def test_a_network_of_ours_is_near_although_it_is_public() -> None:
    ours = [ip_network("8.8.0.0/16"), ip_network("2606:2800:21f::/48")]
    for address in ("8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "2606:2800:21f::1"):
        assert not is_public(address, ours)
    assert is_public("8.9.8.8", ours)


def test_a_listed_host_blocks_all_below_it() -> None:
    blocked = frozenset({"example.com"})
    assert is_blocked("example.com", blocked)
    assert is_blocked("a.b.example.com", blocked)
    assert not is_blocked("badexample.com", blocked)
    assert not is_blocked("com", blocked)
