"""The release scripts of the Mac, run whole with stand-ins for the tools that only a Mac has."""

import hashlib
import json
import plistlib
import shutil
import stat
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VERSION = str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
URL = "https://releases.example/provider"
NAME = f"darkbloom-provider-{VERSION}-macos-arm64.zip"

_LOG = 'echo "$(basename "$0") $*" >> "$LOG"\n'
_TOOLS = {
    "uname": "echo Darwin\n",
    "plutil": _LOG,
    "codesign": _LOG,
    "spctl": _LOG,
    # Stapling is visible in the application, so that the archive shows what it was made of.
    "xcrun": _LOG + 'if [ "$1" = stapler ]; then echo ticket > "$3/Contents/CodeResources"; fi\n',
    "swift": _LOG
    + 'd="$3/.build/arm64-apple-macosx/release"; mkdir -p "$d"; echo x > "$d/DarkbloomLauncher"\n',
    "ditto": _LOG + 'find "$4" -type f | sort > "$5"\n',
    "shasum": 'shift 2; exec sha256sum "$@"\n',
}
# The agent, as far as the script knows it: it says what it is, and the archive's digest.
_AGENT = """
while [ $# -gt 0 ]; do
  case $1 in --manifest) out=$2 ;; --bundle) archive=$2 ;; --bundle-url) url=$2 ;; esac; shift
done
digest=$(sha256sum < "$archive" | cut -d' ' -f1)
printf '{"bundle":{"sha256":"%s","size_bytes":1,"url":"%s"},"release_version":"%s"}' \\
  "$digest" "$url" "$AGENT_VERSION" > "$out"
echo "measure $(basename "$archive")" >> "$LOG"
"""


def _program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\nset -eu\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@dataclass
class Desk:
    """A tree with the two scripts, and a folder of stand-ins."""

    root: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        macos = self.root / "deploy" / "macos"
        ignored = shutil.ignore_patterns("out", ".build")
        shutil.copytree(ROOT / "deploy" / "macos", macos, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", self.root)
        for name, text in _TOOLS.items():
            _program(self.root / "bin" / name, text)
        python = self.root / "python"
        _program(python / "bin" / "python3.11", _AGENT)
        for name in ("lib/a.so", "lib/b.dylib", "lib/__pycache__/c.pyc", "lib/d.py"):
            (python / name).parent.mkdir(parents=True, exist_ok=True)
            (python / name).write_text("x")
        for name in ("launcher.profile", "python.profile"):
            (self.root / name).write_text(name)
        self.environment = {
            "PATH": f"{self.root / 'bin'}:/usr/bin:/bin",
            "LOG": str(self.root / "log"),
            "AGENT_VERSION": VERSION,
            "TEAM_ID": "ABCDE12345",
            "IDENTITY": "Developer ID Application: Example (ABCDE12345)",
            "PROFILE": str(self.root / "launcher.profile"),
            "PYTHON_PROFILE": str(self.root / "python.profile"),
            "NOTARY_PROFILE": "notary",
            "PYTHON_HOME": str(python),
            "BUNDLE_URL": URL,
        }

    @property
    def out(self) -> Path:
        return self.root / "deploy" / "macos" / "out"

    @property
    def log(self) -> list[str]:
        path = self.root / "log"
        return path.read_text().splitlines() if path.exists() else []

    def run(
        self, script: str, version: str = VERSION, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", str(self.root / "deploy" / "macos" / script), version],
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def publish(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Publish, with an upload into a folder and an attestation that only notes."""
        _program(self.root / "bin" / "upload", _LOG + 'cp "$1" "$UPLOADED"\n')
        _program(self.root / "bin" / "fetch", 'cat "$UPLOADED"\n')
        noted = (
            _LOG + 'while [ $# -gt 0 ]; do [ "$1" = --out ] && echo signed > "$2"; shift; done\n'
        )
        _program(self.root / "bin" / "attestation", noted)
        given = {
            "RETAIN": str(self.root / "kept"),
            "UPLOAD": "upload",
            "FETCH": "fetch",
            "ATTESTATION": "attestation",
            "RELEASE_KEY": "key",
            "RELEASE_TARGET": "127.0.0.1:1",
            "UPLOADED": str(self.root / "uploaded"),
        }
        return self.run("publish.sh", **(given | environment))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_the_bundle_is_signed_notarised_stapled_archived_and_only_then_hashed(desk: Desk) -> None:
    done = desk.run("build.sh")
    assert done.returncode == 0, done.stderr
    steps = [line.removeprefix("== ") for line in done.stdout.splitlines() if line[:2] == "=="]
    assert steps == ["build", "sign", "notarise", "staple", "archive", "hash"]

    order = [
        line.split()[0] + ("" if line[:5] != "xcrun" else f" {line.split()[1]}")
        for line in desk.log
    ]
    firsts = list(dict.fromkeys(order))
    assert firsts == [
        *("swift", "plutil", "codesign", "ditto", "xcrun notarytool", "xcrun stapler"),
        *("spctl", "measure"),
    ]
    assert order[-2:] == ["ditto", "measure"]
    # The archive that is hashed holds the ticket; the one that Apple saw did not.
    assert "CodeResources" in (desk.out / NAME).read_text()
    assert desk.log[-1] == f"measure {NAME}"
    measured = json.loads((desk.out / "measured.json").read_text())
    assert measured["bundle"]["url"] == f"{URL}/{NAME}"
    assert (
        measured["bundle"]["sha256"] == hashlib.sha256((desk.out / NAME).read_bytes()).hexdigest()
    )


def test_libraries_are_signed_before_what_holds_them(desk: Desk) -> None:
    assert desk.run("build.sh").returncode == 0
    signed = [line.rpartition("/")[2] for line in desk.log if "codesign --force" in line]
    assert set(signed[:2]) == {"a.so", "b.dylib"}
    assert signed[2:] == ["DarkbloomPython.app", "Darkbloom Provider.app"]
    assert all("--options runtime" in line for line in desk.log if "codesign --force" in line)


def test_both_bundles_carry_the_version_of_the_tree(desk: Desk) -> None:
    assert desk.run("build.sh").returncode == 0
    app = desk.out / "Darkbloom Provider.app" / "Contents"
    for path in (app, app / "Helpers" / "DarkbloomPython.app" / "Contents"):
        said = plistlib.loads((path / "Info.plist").read_bytes())
        assert said["CFBundleVersion"] == said["CFBundleShortVersionString"] == VERSION
        assert said["DarkbloomTeamID"] == "ABCDE12345"
    assert not list(app.rglob("__pycache__"))


def test_another_version_than_the_trees_is_not_built(desk: Desk) -> None:
    done = desk.run("build.sh", "9.9.9")
    assert done.returncode == 65
    assert f"the tree is {VERSION}, not 9.9.9" in done.stderr
    assert desk.log == []


def test_an_agent_of_another_version_is_not_released(desk: Desk) -> None:
    done = desk.run("build.sh", AGENT_VERSION="0.0.1")
    assert done.returncode == 65
    assert "of another version" in done.stderr
    assert not (desk.out / f"{NAME}.sha256").exists()


@pytest.mark.parametrize("tool", ["codesign", "xcrun", "spctl"])
def test_nothing_is_archived_where_a_step_before_failed(desk: Desk, tool: str) -> None:
    _program(desk.root / "bin" / tool, "exit 3\n")
    assert desk.run("build.sh").returncode == 3
    assert not (desk.out / NAME).exists()
    assert not (desk.out / "measured.json").exists()


def test_what_was_built_is_kept_uploaded_checked_and_registered_as_staged(desk: Desk) -> None:
    assert desk.run("build.sh").returncode == 0
    (desk.root / "log").unlink()

    done = desk.publish()

    assert done.returncode == 0, done.stderr
    steps = [line.removeprefix("== ") for line in done.stdout.splitlines() if line[:2] == "=="]
    assert steps == ["retain", "upload", "register"]
    kept = desk.root / "kept" / NAME
    assert kept.read_bytes() == (desk.out / NAME).read_bytes()
    assert kept.stat().st_mode & 0o222 == 0
    upload, sign, register = desk.log
    assert upload == f"upload {kept} {URL}/{NAME}"
    assert sign.startswith("attestation release sign ")
    assert (
        register == f"attestation release register {kept}.release.json --stage --target 127.0.0.1:1"
    )


def test_publication_is_repeated_and_signing_is_not(desk: Desk) -> None:
    assert desk.run("build.sh").returncode == 0
    assert desk.publish(FETCH="false").returncode == 65
    assert not any(line.startswith("attestation") for line in desk.log)
    for _ in range(2):
        assert desk.publish().returncode == 0
    assert sum("release sign" in line for line in desk.log) == 1
    assert sum("release register" in line for line in desk.log) == 2


def test_another_archive_of_a_kept_version_is_refused(desk: Desk) -> None:
    assert desk.run("build.sh").returncode == 0
    assert desk.publish().returncode == 0
    (desk.root / "python" / "lib" / "e.py").write_text("more")
    assert desk.run("build.sh").returncode == 0
    done = desk.publish()
    assert done.returncode == 65
    assert "a version is released once" in done.stderr


def test_an_archive_that_was_changed_after_it_was_measured_is_refused(desk: Desk) -> None:
    assert desk.run("build.sh").returncode == 0
    with (desk.out / NAME).open("a") as file:
        file.write("x")
    done = desk.publish()
    assert done.returncode == 65
    assert "is not what was measured" in done.stderr
    assert not (desk.root / "kept").exists()


def test_an_address_that_holds_something_else_is_not_registered(desk: Desk) -> None:
    assert desk.run("build.sh").returncode == 0
    done = desk.publish(FETCH="echo other")
    assert done.returncode == 65
    assert "holds something else" in done.stderr
    assert not any("attestation" in line for line in desk.log)
