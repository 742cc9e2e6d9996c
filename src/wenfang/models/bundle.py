"""The folder a model travels in: its files, a manifest with their hashes, and a signature over the manifest.

``manifest.json`` says what the model is, what goes in and comes out, where it comes from, and lists every file with size and SHA-256;
``manifest.sig`` is an Ed25519 signature over its bytes. Nothing is read that the manifest does not list, and nothing before it is verified.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wenfang.core.durable import publish_file, write_file
from wenfang.core.errors import Broken
from wenfang.core.ids import now, sha256_hex
from wenfang.core.ports import Signer, Verifier
from wenfang.core.records import Task

from . import families
from .base import Model

__all__ = ["FORMAT", "BundleInfo", "FileEntry", "Manifest", "open_bundle", "verify_bundle", "write_bundle"]

FORMAT = 1
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
MANIFEST_MAX_BYTES = 64 << 20
CHUNK_BYTES = 1 << 20
HEADER_MAX_BYTES = 16 << 20
"""Of the JSON at the head of a safetensors file: more would only be there to exhaust its reader."""


class FileEntry(BaseModel):
    """One file of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class Manifest(BaseModel):
    """What a bundle says of itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = FORMAT
    family: str
    task: Task
    labels: list[str]
    hyper: dict[str, Any]
    seed: int
    signature: dict[str, Any]
    """Inputs and outputs, with types and shapes."""
    card: dict[str, Any]
    lineage: dict[str, Any]
    environment: dict[str, str]
    files: dict[str, FileEntry]
    """By POSIX path inside the bundle."""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """A bundle that was just written."""

    folder: Path
    hash: str
    """SHA-256 of the manifest's bytes: the name of the bundle."""
    size_bytes: int
    """Of all files together."""
    manifest: Manifest


_OUTPUTS: dict[Task, tuple[tuple[str, str], ...]] = {
    "classification": (("label", "BYTES"), ("score", "FP32")),
    "multilabel": (("labels", "BYTES"), ("score", "FP32")),
    "tagging": (("spans", "BYTES"),),
    "matching": (("label", "BYTES"), ("score", "FP32")),
    "embedding": (("vector", "FP32"),),
    "generation": (("text", "BYTES"),),
    "chat": (("text", "BYTES"),),
}


def _signature_of(task: Task) -> dict[str, Any]:
    inputs = ("text", "text_b") if task == "matching" else ("text",)
    shape = [-1, -1] if task == "embedding" else [-1]
    return {
        "inputs": [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in inputs],
        "outputs": [{"name": name, "datatype": datatype, "shape": shape} for name, datatype in _OUTPUTS[task]],
    }


def _hash_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def write_bundle(folder: Path, model: Model, *, signer: Signer, card: Mapping[str, Any], lineage: Mapping[str, Any]) -> BundleInfo:
    """Save a trained model as a signed bundle into an empty or new ``folder``.

    Raises:
        Broken: `bundle.folder-not-empty`, `home.write-failed`.
    """
    if folder.exists() and any(folder.iterdir()):
        raise Broken("bundle.folder-not-empty", folder=folder.name)
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder)
    files: dict[str, FileEntry] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        publish_file(path, path)
        files[path.relative_to(folder).as_posix()] = FileEntry(sha256=_hash_file(path), size_bytes=path.stat().st_size)
    manifest = Manifest(
        family=model.name, task=model.task, labels=model.labels_, hyper=model.hyper.model_dump(mode="json"), seed=model.seed, signature=_signature_of(model.task), card=dict(card),
        lineage=dict(lineage), environment=dict(model.environment()), files=files, created_at=now(),
    )  # fmt: skip
    data = json.dumps(manifest.model_dump(mode="json"), ensure_ascii=True, sort_keys=True, separators=(",", ":")).encode()
    write_file(folder / MANIFEST, data)
    write_file(folder / SIGNATURE, _seal(signer.key_id(), signer.sign(data)))
    return BundleInfo(folder, sha256_hex(data), sum(f.size_bytes for f in files.values()), manifest)


def verify_bundle(folder: Path, *, verifier: Verifier) -> Manifest:
    """Check signature, file list, sizes and hashes, and return the manifest. Nothing of the model is parsed.

    Raises:
        Broken: `bundle.missing-file`, `bundle.bad-manifest`, `bundle.unlisted-file`, `bundle.damaged`, `bundle.bad-header`; `signature.*` of the verifier.

    Cost: one pass over all bytes.
    """
    data = _read_small(folder, MANIFEST)
    sealed = _read_small(folder, SIGNATURE)
    try:
        seal = json.loads(sealed)
        signature, key_id = bytes.fromhex(seal["signature"]), str(seal["key_id"])
    except (ValueError, KeyError, TypeError) as e:
        raise Broken("bundle.bad-signature-file", bundle=folder.name) from e
    if sealed != _seal(key_id, signature):  # spelt otherwise: capital digits, blanks, more keys
        raise Broken("bundle.bad-signature-file", bundle=folder.name)
    verifier.verify(data, signature, key_id)
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as e:
        first = e.errors(include_input=False, include_url=False)[0]
        raise Broken("bundle.bad-manifest", bundle=folder.name, reason=f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from e
    _check_names(folder, manifest)
    for name, entry in manifest.files.items():
        path = folder / name
        if path.stat().st_size != entry.size_bytes or _hash_file(path) != entry.sha256:
            raise Broken("bundle.damaged", bundle=folder.name, file=name)
        if path.suffix == ".safetensors" and not _header_fits(path):
            raise Broken("bundle.bad-header", bundle=folder.name, file=name, max_bytes=HEADER_MAX_BYTES)
    return manifest


def _seal(key_id: str, signature: bytes) -> bytes:
    """The one way to write a signature down."""
    return json.dumps({"key_id": key_id, "signature": signature.hex()}).encode()


def _header_fits(path: Path) -> bool:
    """Whether the length that a safetensors file claims for its header is sane."""
    with open(path, "rb") as f:
        head = f.read(8)
    return len(head) == 8 and int.from_bytes(head, "little") <= min(HEADER_MAX_BYTES, path.stat().st_size - 8)


def _read_small(folder: Path, name: str) -> bytes:
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise Broken("bundle.missing-file", bundle=folder.name, file=name)
    if path.stat().st_size > MANIFEST_MAX_BYTES:
        raise Broken("bundle.bad-manifest", bundle=folder.name, reason=f"{name} is larger than {MANIFEST_MAX_BYTES} bytes")
    return path.read_bytes()


def _check_names(folder: Path, manifest: Manifest) -> None:
    for name in manifest.files:
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or str(pure) != name or "\\" in name or name in {MANIFEST, SIGNATURE}:
            raise Broken("bundle.bad-manifest", bundle=folder.name, reason=f"file name {name[:100]!r}")
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or (not path.is_dir() and name not in manifest.files and name not in {MANIFEST, SIGNATURE}):
            raise Broken("bundle.unlisted-file", bundle=folder.name, file=name[:200])
    for name in manifest.files:
        if not (folder / name).is_file():
            raise Broken("bundle.missing-file", bundle=folder.name, file=name)


def open_bundle(folder: Path, *, verifier: Verifier) -> tuple[Manifest, Model]:
    """Verify a bundle, then load its model, ready to predict.

    Raises:
        Broken: as ``verify_bundle``; `bundle.bad-manifest` for hyper-parameters the family does not know.
        NotFound: `plugin.unknown`, a family that is not installed here.
    """
    manifest = verify_bundle(folder, verifier=verifier)
    family = families.get(manifest.family)
    try:
        hyper = family.Hyper.model_validate(manifest.hyper)
    except ValidationError as e:
        raise Broken("bundle.bad-manifest", bundle=folder.name, reason=f"hyper: {e.error_count()} errors") from e
    model = family.load(folder, task=manifest.task, hyper=hyper, labels=manifest.labels)
    model.seed = manifest.seed
    return manifest, model
