"""``wenfang deploy render``: the installation as manifests for a cluster. Needs settings and no studio, and works before there is one."""

from __future__ import annotations

import json
from pathlib import Path

import click

from wenfang.core.durable import disk_error, write_file
from wenfang.core.errors import Conflict
from wenfang.core.settings import load_settings
from wenfang.core.words import say

from .up import home_at

__all__ = ["DEPLOY"]


def _render(out: str, home: str | None, as_json: bool) -> None:
    """Write plain Kubernetes manifests of this installation into the folder OUT, or with - to standard output.

    What they say comes from wenfang.toml: [deploy] is what the cluster gives, the rest is carried into the pod. Equal settings give equal files.
    Files of an earlier render are replaced, and removed where they are not needed any more; any other file stops it.
    """
    from wenfang.studio.manifests import HEAD, render

    files = render(load_settings(home_at(home).root))
    if out == "-":
        click.echo("---\n".join(files.values()), nl=False)
        return
    folder = Path(out)
    _write(folder, files, HEAD)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "files": sorted(files)}, ensure_ascii=False))
        return
    for name in files:
        click.echo(str(folder / name))
    click.echo(say("deploy.rendered", folder=str(folder)))


def _write(folder: Path, files: dict[str, str], head: str) -> None:
    """Replace what an earlier render wrote, and nothing else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = {p for p in sorted(folder.glob("*.yaml")) if p.read_bytes().startswith(head.encode())}
        if foreign := [name for name in files if (folder / name).exists() and folder / name not in earlier]:
            raise Conflict("deploy.not-ours", folder=str(folder), file=foreign[0])
        for name, text in files.items():
            write_file(folder / name, text.encode())
        for path in earlier - {folder / name for name in files}:
            path.unlink()
    except OSError as e:
        raise disk_error(e, folder) from e


DEPLOY = click.Group(
    "deploy",
    help="put an installation into production",
    commands={
        "render": click.Command(
            "render",
            params=[
                click.Argument(["out"], metavar="OUT"),
                click.Option(["--home"], type=click.Path(), help="home folder whose wenfang.toml is read; WENFANG_HOME, else ./wenfang-home"),
                click.Option(["--json", "as_json"], is_flag=True, help="print one JSON object at the end"),
            ],
            callback=_render,
            help=_render.__doc__,
            no_args_is_help=True,
        )
    },
)
