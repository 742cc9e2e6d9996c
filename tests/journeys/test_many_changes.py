"""The promise in numbers: a hundred switches in fifty thousand requests. The bench does the work and says what it saw."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def bench(name, **wanted):
    done = subprocess.run(
        [sys.executable, "-m", "bench", name], cwd=Path(__file__).parents[2], env={**os.environ, **wanted}, capture_output=True, text=True, timeout=1150, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_hundred_switches_in_fifty_thousand_requests_fail_none():
    said = bench("switches", BENCH_SWITCHES="100", BENCH_REQUESTS="50000")
    switches, requests, failed, stale = map(int, re.search(r"(\d+) switches, (\d+) requests .*: (\d+) failed, (\d+) answered", said).groups())
    assert switches >= 100
    assert requests >= 50_000
    assert (failed, stale) == (0, 0), said
    for early, late in re.findall(r"memory of \w+: ([\d.]+) MB after a fifth, ([\d.]+) MB at the end", said):
        assert float(late) < 1.2 * float(early) + 5, said
