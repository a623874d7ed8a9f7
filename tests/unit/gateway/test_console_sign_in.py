import pytest
from darkbloom_gateway.console.sign_in import SignIn
from darkbloom_gateway.console.site import load_site


@pytest.mark.parametrize(
    ("token_url", "origin"),
    [
        ("https://id.example/oauth/token", "https://id.example"),
        ("https://id.example:8443/token?tenant=1", "https://id.example:8443"),
        ("http://127.0.0.1:9000/token", "http://127.0.0.1:9000"),
    ],
)
def test_the_origin_of_the_token_endpoint_may_be_called(token_url: str, origin: str) -> None:
    assert SignIn("https://id.example/authorize", token_url, "console").origin == origin


@pytest.mark.parametrize(
    ("authorize_url", "token_url", "client_id"),
    [
        ("", "https://id.example/token", "console"),
        ("https://id.example/authorize", "", "console"),
        ("https://id.example/authorize", "https://id.example/token", ""),
        ("http://id.example/authorize", "https://id.example/token", "console"),
        ("https://id.example/authorize", "http://id.example/token", "console"),
        ("javascript:alert(1)", "https://id.example/token", "console"),
        ("https://id.example/authorize", "https://id.example; script-src *", "console"),
        ("https://id.example/authorize", "https://id.example,evil/token", "console"),
    ],
)
def test_what_a_browser_could_not_use_safely_is_refused(
    authorize_url: str, token_url: str, client_id: str
) -> None:
    with pytest.raises(ValueError, match="url"):
        SignIn(authorize_url, token_url, client_id)


def test_another_file_is_another_version(tmp_path) -> None:
    (tmp_path / "js").mkdir()
    (tmp_path / "index.html").write_text('<script src="{{assets}}/js/a.js">')
    (tmp_path / "js" / "a.js").write_text("1")
    first = load_site(tmp_path)
    (tmp_path / "js" / "a.js").write_text("2")
    second = load_site(tmp_path)

    assert first.version != second.version
    assert first.page.content == f'<script src="/console/assets/{first.version}/js/a.js">'.encode()
    assert set(first.assets) == {"js/a.js"}


def test_a_file_without_a_media_type_is_refused(tmp_path) -> None:
    (tmp_path / "index.html").write_text("")
    (tmp_path / "notes.bin").write_text("")
    with pytest.raises(ValueError, match="no media type"):
        load_site(tmp_path)
