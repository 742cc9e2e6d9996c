"""The types of names and references that requests share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from wenfang.core.errors import Denied, Invalid, NotFound
from wenfang.core.records import Project, Upload

from .app import Studio

__all__ = ["Name", "ProjectName", "check_project", "local_path", "safe_name"]

Name = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9\u4e00-\u9fff][A-Za-z0-9_.\-\u4e00-\u9fff]{0,63}$"), Field(description="letters, digits, Han characters, - _ . ; at most 64")
]
ProjectName = Annotated[str, Field(description="project", json_schema_extra={"cli": "--project"})]


def safe_name(text: str) -> str:
    """A ``Name`` made from a file's name.

    >>> safe_name("客服 工单(1).csv")
    '客服-工单-1'
    """
    stem = Path(text).stem
    kept = "".join(c if (c.isascii() and c.isalnum()) or "\u4e00" <= c <= "\u9fff" or c in "-_" else "-" for c in stem)
    while "--" in kept:
        kept = kept.replace("--", "-")
    return kept.strip("-_.")[:64] or "data"


def check_project(studio: Studio, name: str) -> None:
    """Raise `record.not-found` unless the project exists."""
    if not studio.tables.find(Project, where={"name": name}, limit=1):
        known = [p.name for p in studio.tables.find(Project) if studio.may_see(p.name)]
        raise NotFound("record.not-found", kind="Project", name=name, near=", ".join(known) or "—")


def local_path(studio: Studio, reference: str, folder: Path) -> Path:
    """The file behind ``reference``: a path (only for the local user) or ``upload:up_…``.

    Raises:
        Denied: `dataset.path-is-local`; NotFound: `dataset.no-file`; Invalid: `dataset.not-a-file`.
    """
    if reference.startswith("upload:"):
        upload = studio.get(Upload, reference.removeprefix("upload:"))
        target = folder / upload.id / upload.file_name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            studio.blobs.fetch(upload.blob, target)
        return target
    if studio.actor is None or not studio.actor.local:
        raise Denied("data.path-is-local")
    try:
        path = Path(reference).expanduser()
        path.stat()
        if not path.is_file():
            raise Invalid("data.not-a-file", path=reference)
    except (OSError, ValueError, RuntimeError) as e:  # not there, no permission, too long, a NUL, an unknown ~user
        raise NotFound("data.no-file", path=reference[:200], reason=getattr(e, "strerror", None) or str(e)) from e
    return path
