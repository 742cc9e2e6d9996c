"""``python -m bench [NAME …]``: run benches and print their figures; without names, list them."""

import importlib
import pkgutil
import sys
from pathlib import Path

names = [m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if not m.name.startswith("_") and m.name not in {"load", "echo_model"}]
wanted = sys.argv[1:]
if not wanted:
    print("benches:")
    for name in names:
        print(f"  {name:20} {(importlib.import_module(f'bench.{name}').__doc__ or '').splitlines()[0]}")
for name in wanted:
    importlib.import_module(f"bench.{name}").main()
