# make demo and make test are the two commands; both set up everything they need.
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: install demo test test-all test-ray check docs bench proto

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || python3 -m venv $(VENV) || { rm -rf $(VENV); apt-get update -qq && apt-get install -y -qq python3-venv && python3 -m venv $(VENV); }
	$(PY) -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: install
	$(VENV)/bin/wenfang demo

check: install
	$(VENV)/bin/ruff check src tests bench
	$(VENV)/bin/ruff format --check src tests bench
	$(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/pyright

test: check
	$(PY) -m pytest -m "not slow"

test-all: check
	$(PY) -m pytest

test-ray: check
	$(PY) -m pip install --quiet -c constraints.txt -e '.[ray]'
	$(PY) -m pytest tests/contracts/test_runtimes.py tests/contracts/test_workers.py tests/journeys/test_ray_nodes.py

docs: install
	$(PY) docs/build.py

bench: install
	$(PY) -m bench

proto: install
	$(PY) -m grpc_tools.protoc -I src/wenfang/doors/gateway/rpc --descriptor_set_out=src/wenfang/doors/gateway/rpc/inference.binpb inference.proto
