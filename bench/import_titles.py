"""Import of 200,000 titles with the data card and durable parts, beside the bare reads of Polars and the standard library."""

import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 200_000
DATA = Path(os.environ.get("WENFANG_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
KINDS = ("wenfang import", "polars read", "stdlib csv read")


def measure(kind: str, path: Path, folder: Path) -> int:
    """Do one kind of work once; returns the rows seen."""
    if kind == "polars read":
        import polars as pl

        return pl.read_csv(path, separator="\t", has_header=False, quote_char=None).height
    if kind == "stdlib csv read":
        with open(path, encoding="utf-8", newline="") as f:
            return sum(1 for _ in csv.reader(f, delimiter="\t", quoting=csv.QUOTE_NONE))
    from wenfang.core.ports import Quiet
    from wenfang.data.importing import import_file
    from wenfang.stores.blobs.file import FileBlobs

    got = import_file(path, blobs=FileBlobs(folder), progress=Quiet())
    return sum(got.rows.values())


def child(kind: str, path: Path) -> None:
    """One measurement in a process of its own: imports of the libraries are part of it."""
    with tempfile.TemporaryDirectory() as folder:
        wall = time.perf_counter()
        rows = measure(kind, path, Path(folder))
        wall = time.perf_counter() - wall
    usage = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{kind:16} {rows:>9,} {wall:8.2f} {usage.ru_utime + usage.ru_stime:8.2f} {rows / wall:12,.0f} {usage.ru_maxrss / 1024:9.0f}")


def main() -> None:
    """Write the file once, then measure each kind in a fresh process."""
    size = int(os.environ.get("WENFANG_BENCH_BYTES", "0"))
    lines = (DATA / "thucnews_titles" / "train_part.txt").read_bytes().splitlines(keepends=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "titles.txt"
        with open(path, "wb") as f:
            if size:
                block = b"".join(lines)
                while f.tell() < size:
                    f.write(block)
            else:
                f.write(b"".join(lines[i % len(lines)] for i in range(ROWS)))
        print(f"{path.stat().st_size / 1e6:.1f} MB")
        print(f"{'work':16} {'rows':>9} {'wall s':>8} {'CPU s':>8} {'rows/s':>12} {'RSS MiB':>9}")
        for kind in KINDS:
            subprocess.run([sys.executable, "-m", "bench.import_titles", kind, str(path)], check=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(sys.argv[1], Path(sys.argv[2]))
    else:
        main()
