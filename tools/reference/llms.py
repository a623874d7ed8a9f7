"""`llms.txt`: the documentation's map for programs that read, as llmstxt.org describes it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INDEX = ROOT / "docs/README.md"
SUMMARY = (
    "Private inference on other people's Macs behind an OpenAI-compatible API. Requests are sealed "
    "to the machine that answers; every answer has a receipt that can be checked offline."
)
NOTES = (
    "Change the base URL of an OpenAI or Anthropic client and keep everything else. API keys begin "
    "with `sk-db-`. Money is integer micro-USD unless a field is named `_usd`. Drafts under "
    "`docs/legal/` are not in force."
)
SERVED = (
    "quickstart.md",
    "errors.md",
    "structured-output.md",
    "sign-in.md",
    "sealed.md",
    "end-to-end.md",
    "public-evidence.md",
    "confidential-gateway.md",
    "verify.md",
    "privacy.md",
    "routes.md",
)
"""What a gateway gives out itself, in this order: for who writes or checks a client."""
_ROW = re.compile(r"^\| \[([^\]]+)\]\(([^)#]+)\) \| (.+?) \|", re.MULTILINE)
_OPENAPI = "openapi.json"
_MARK = "<!-- page: docs/{} -->\n"


@dataclass(frozen=True)
class Entry:
    """One page of the index."""

    title: str
    path: str
    about: str


def page() -> str:
    """Return the map of everything, with paths inside the repository."""
    rest = [entry for entry in entries() if entry.path not in {*SERVED, _OPENAPI}]
    return f"{served().replace(f'({_OPENAPI})', f'(docs/{_OPENAPI})')}\n## Optional\n\n" + "".join(
        f"- [{one.title}]({_from_root(one.path)}): {one.about}\n" for one in rest
    )


def served() -> str:
    """Return the map that a gateway serves: every link in it resolves there."""
    known = {entry.path: entry for entry in entries()}
    docs = "".join(
        f"- [{known[path].title}](docs/{path}): {known[path].about}\n" for path in SERVED
    )
    return (
        f"# Darkbloom\n\n> {SUMMARY}\n\n{NOTES}\n\n## Docs\n\n{docs}\n## API\n\n"
        f"- [OpenAPI]({_OPENAPI}): every route with bodies, answers, errors and limits\n"
    )


def full() -> str:
    """Return the text of every page that a gateway serves."""
    pages = [
        _MARK.format(name) + (ROOT / "docs" / name).read_text().rstrip("\n") for name in SERVED
    ]
    return "\n\n".join(pages) + "\n"


def entries() -> Iterator[Entry]:
    """Yield the rows of the index's tables, each page once."""
    seen = set()
    for title, path, about in _ROW.findall(INDEX.read_text()):
        if path not in seen and not path.endswith("/"):
            seen.add(path)
            yield Entry(title, path, re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", about))


def _from_root(path: str) -> str:
    return str((INDEX.parent / path).resolve().relative_to(ROOT))
