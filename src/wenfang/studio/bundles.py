"""Bundles of model versions at hand: kept as blobs, unpacked in the cache, asked through a replica that runs or in this process."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import msgspec

from wenfang.core.conversation import Generation
from wenfang.core.durable import write_file
from wenfang.core.errors import BY_STATUS, Broken
from wenfang.core.examples import Output
from wenfang.core.frames import recv_frame, send_frame
from wenfang.core.places import connect
from wenfang.core.ports import Blobs
from wenfang.core.records import ModelVersion
from wenfang.core.text import encodable
from wenfang.serve.routing import replica_socket
from wenfang.serve.wire import Ask

from .app import Studio

__all__ = ["ask_served", "store_bundle", "unpack_bundle"]


def store_bundle(folder: Path, blobs: Blobs) -> tuple[str, str]:
    """Keep a bundle's files as blobs; returns the names of its manifest and of its signature."""
    manifest = (folder / "manifest.json").read_bytes()
    for name in json.loads(manifest)["files"]:
        blobs.put_file(folder / name)
    return blobs.put(manifest), blobs.put_file(folder / "manifest.sig")


def unpack_bundle(version: ModelVersion, blobs: Blobs, cache: Path) -> Path:
    """The bundle's folder under ``cache``; written beside and renamed, so that it is whole or not there."""
    target = cache / version.bundle
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".unpack-") as spare:
        folder = Path(spare) / "bundle"
        manifest = blobs.get(version.bundle)
        for name, entry in json.loads(manifest)["files"].items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            blobs.fetch(entry["sha256"], path)
        write_file(folder / "manifest.json", manifest)
        blobs.fetch(version.signature, folder / "manifest.sig")
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster with the same bytes
                raise
    return target


def ask_served(studio: Studio, version: ModelVersion, texts: list[str], texts_b: list[str], top_k: int, options: Generation | None = None) -> list[Output]:
    """Ask a running replica of ``version``; without one, load the model here."""
    writes = version.task in {"generation", "chat"}
    options = options or Generation()
    asked = Ask(0, [encodable(t) for t in texts], top_k, [encodable(t) for t in texts_b], [options] * len(texts) if writes else [])
    try:
        with connect(replica_socket(studio.home.run, version.id, 0), 60.0) as sock:
            recv_frame(sock)
            send_frame(sock, asked)
            while (reply := recv_frame(sock))["type"] != "answer":
                pass  # a sign of life
    except (OSError, EOFError):
        from wenfang.models.bundle import open_bundle

        _, model = open_bundle(unpack_bundle(version, studio.blobs, studio.home.cache), verifier=studio.verifier)
        if writes:
            return model.generate(texts, [options] * len(texts))
        return model.match(texts, texts_b, top_k=top_k) if texts_b else model.predict(texts, top_k=top_k)
    for error in reply["errors"].values():
        raise BY_STATUS.get(error["status"], Broken)(error["code"], **error["fields"])
    return msgspec.convert(reply["outputs"], list[Output])
