"""What is in git, and a clean copy of it: nothing that lies about in a working tree is released."""

from __future__ import annotations

import io
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tools.release.errors import ReleaseError
from tools.release.rooms import ROOT

_TIMEOUT_S = 120


@dataclass(frozen=True, slots=True)
class Repository:
    """A clone."""

    root: Path = ROOT

    def head(self) -> str:
        """Return the commit that is checked out."""
        return self._git("rev-parse", "HEAD").strip()

    def has(self, commit: str) -> bool:
        """Whether the commit is in this clone; a shallow one has few."""
        return self._run("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0

    def dirty(self) -> list[str]:
        """Return what differs from the commit, also files that git does not know."""
        return self._git("status", "--porcelain", "--untracked-files=all").splitlines()

    def tags(self) -> list[str]:
        """Return the tags of releases that this commit comes after, or is."""
        return self._git("tag", "--list", "v[0-9]*", "--merged", "HEAD").split()

    def tagged(self, tag: str) -> str | None:
        """Return the commit of a tag; None where there is none."""
        found = self._run("rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}")
        return found.stdout.decode().strip() or None

    def seconds(self, commit: str) -> int:
        """Return when a commit was made, in seconds since the epoch."""
        return int(self._git("show", "--no-patch", "--format=%ct", commit))

    def text(self, commit: str, path: str) -> str:
        """Return a file as it was at a commit.

        Raises:
            ReleaseError: It was not there.
        """
        return self._git("show", f"{commit}:{path}")

    def export(self, commit: str, where: Path) -> Path:
        """Write the tree of a commit into a directory and return it."""
        archive = self._run("archive", "--format=tar", commit)
        if archive.returncode:
            raise ReleaseError(f"git archive: {archive.stderr.decode('utf-8', 'replace').strip()}")
        where.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
            # git makes it, out of our own tree. Before 3.11.4 there is no filter to ask for.
            if hasattr(tarfile, "data_filter"):
                tar.extractall(where, filter="data")
            else:
                tar.extractall(where)  # noqa: S202 - see above
        return where

    def _git(self, *arguments: str) -> str:
        found = self._run(*arguments)
        if found.returncode:
            complaint = found.stderr.decode("utf-8", "replace").strip()
            raise ReleaseError(f"git {arguments[0]}: {complaint}")
        return found.stdout.decode()

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
