"""`python -m tools.release`: what the Makefile's release targets run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from darkbloom_mesh.clock import SystemClock

from tools.release import dsse, images, making, preparing, verifying, versions
from tools.release.errors import ReleaseError
from tools.release.rooms import ROOT
from tools.release.trees import Repository

_SOURCE = "git+https://darkbloom.invalid/darkbloom"


def _version(arguments: argparse.Namespace) -> int:
    for path in versions.write(arguments.version):
        print(path.relative_to(ROOT))
    return 0


def _prepare(arguments: argparse.Namespace) -> int:
    print("next:")
    for todo in preparing.prepare(ROOT, arguments.version, SystemClock().now().date()):
        print(f"  - {todo}")
    return 0


def _key(arguments: argparse.Namespace) -> int:
    public = dsse.new_key(arguments.path)
    print(f"{public} is what others check with: {dsse.key_id(dsse.read_public(public))}")
    return 0


def _make(arguments: argparse.Namespace) -> int:
    order = making.Order(
        version=arguments.version,
        out=arguments.out / arguments.version,
        key=dsse.read_key(arguments.key),
        builder=arguments.builder,
        source=arguments.source,
    )
    made = making.make(Repository(), order, SystemClock().now)
    print(f"{order.out}: {len(made)} files, signed by {dsse.key_id(order.key.public_key())[:16]}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    key = dsse.read_public(arguments.key)
    faults = verifying.verify(
        arguments.folder, key, version=arguments.version, commit=arguments.commit
    )
    for fault in faults:
        print(fault)
    print(f"{arguments.folder}: {'good' if not faults else f'{len(faults)} faults'}")
    return int(bool(faults))


def _images(arguments: argparse.Namespace) -> int:
    version = versions.declared()
    plan = images.Plan(
        version=version,
        commit=Repository().head(),
        seconds=Repository().seconds("HEAD"),
        registry=arguments.registry,
        key=arguments.cosign_key,
        rooms=arguments.rooms.split(",") if arguments.rooms else images.ROOMS,
    )
    if not arguments.print:
        making.require(Repository(), version)
    for line in images.release(plan, images.Printed() if arguments.print else images.Shell()):
        print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__)
    commands = parser.add_subparsers(required=True)

    version = commands.add_parser("version", help="say another version everywhere")
    version.add_argument("version")
    version.set_defaults(run=_version)

    prepare = commands.add_parser("prepare", help="cut the changelog, make room for the notes")
    prepare.add_argument("version")
    prepare.set_defaults(run=_prepare)

    key = commands.add_parser("key", help="make a signing key, PEM, and its public half")
    key.add_argument("path", type=Path)
    key.set_defaults(run=_key)

    make = commands.add_parser("make", help="build, list, sign")
    make.add_argument("version")
    make.add_argument("--key", type=Path, required=True, help="Ed25519, PEM, 0600")
    make.add_argument("--out", type=Path, default=Path("dist"))
    make.add_argument("--builder", default="https://darkbloom.invalid/builders/by-hand")
    make.add_argument("--source", default=_SOURCE, help="URI of the repository")
    make.set_defaults(run=_make)

    verify = commands.add_parser("verify", help="check a folder, offline")
    verify.add_argument("folder", type=Path)
    verify.add_argument("--key", type=Path, required=True, help="public key, PEM")
    verify.add_argument("--version", default="")
    verify.add_argument("--commit", default="")
    verify.set_defaults(run=_verify)

    pictures = commands.add_parser("images", help="build, push, list and sign images")
    pictures.add_argument("--registry", required=True, help="for example registry.example/mesh")
    pictures.add_argument("--cosign-key", default="", help="file or KMS URI; empty is keyless")
    pictures.add_argument("--rooms", default="", help="with commas between; empty is all")
    pictures.add_argument("--print", action="store_true", help="only say what would be run")
    pictures.set_defaults(run=_images)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ReleaseError as error:
        print(f"release: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
