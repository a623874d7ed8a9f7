"""Generate the committed Python of protos/ into protos/gen, or `--check` that it is fresh."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "protos"
OUTPUT = SOURCE / "gen"


def generate(target: Path) -> None:
    """Write the generated tree into `target`, replacing what is there."""
    files = sorted(str(p.relative_to(SOURCE)) for p in SOURCE.glob("darkbloom/**/*.proto"))
    bin_dir = Path(sys.executable).parent
    target.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--plugin=protoc-gen-mypy={bin_dir / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={bin_dir / 'protoc-gen-mypy_grpc'}",
            f"-I{SOURCE}",
            f"--python_out={target}",
            f"--grpc_python_out={target}",
            f"--mypy_out=quiet:{target}",
            f"--mypy_grpc_out=only_async,quiet:{target}",
            *files,
        ],
        check=True,
    )
    # Message-only files get empty service modules; nobody should import those.
    for proto in files:
        if "service " not in (SOURCE / proto).read_text().replace("\n", " "):
            stem = target / proto.removesuffix(".proto")
            for suffix in ("_pb2_grpc.py", "_pb2_grpc.pyi"):
                stem.with_name(stem.name + suffix).unlink(missing_ok=True)
    packages = {p.parent for p in target.rglob("*_pb2.py")}
    for package in packages:
        for folder in (package, *package.parents):
            if folder == target:
                break
            (folder / "__init__.py").touch()
            (folder / "py.typed").touch()


def differences(left: Path, right: Path) -> list[str]:
    """Return the relative paths that differ between two trees."""
    names = {p.relative_to(left) for p in left.rglob("*") if p.is_file()}
    names |= {p.relative_to(right) for p in right.rglob("*") if p.is_file()}
    names = {n for n in names if "__pycache__" not in n.parts}

    def same(name: Path) -> bool:
        a, b = left / name, right / name
        return a.exists() and b.exists() and filecmp.cmp(a, b, shallow=False)

    return sorted(str(n) for n in names if not same(n))


def main() -> int:
    """Generate, or with `--check` compare and list what is stale."""
    if "--check" not in sys.argv[1:]:
        shutil.rmtree(OUTPUT, ignore_errors=True)
        generate(OUTPUT)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = differences(Path(scratch), OUTPUT)
    for name in stale:
        print(f"stale: protos/gen/{name}")
    if stale:
        print("run `make protos` and commit the result")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
