"""The page on which a person tells the development issuer who to be."""

import html
from collections.abc import Mapping

from darkbloom_local.issuer import DEVELOPER

_STYLE = """
:root { color-scheme: light dark }
body { font: 1.1rem/1.5 system-ui, sans-serif; max-width: 26rem; margin: 12vh auto; padding: 1rem }
input, button { font: inherit; padding: .6rem; width: 100%; margin: .3rem 0 }
* { box-sizing: border-box }
"""


def sign_in_page(query: Mapping[str, str]) -> bytes:
    """Return a form that comes back with the same query and a name.

    Args:
        query: of the request to `/authorize`, already found to be well formed.
    """
    kept = "".join(
        f'<input type="hidden" name="{html.escape(name)}" value="{html.escape(value)}">'
        for name, value in query.items()
    )
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<title>Development sign-in</title><style>{_STYLE}</style></head><body><main>
<h1>Development sign-in</h1>
<p>This issuer signs in whoever asks. It exists on this machine only, and no password is wanted.</p>
<form method="get" action="/authorize">{kept}
<label for="who">E-mail</label>
<input id="who" name="login_hint" type="email" required value="{html.escape(DEVELOPER)}">
<button>Sign in</button></form></main></body></html>""".encode()
