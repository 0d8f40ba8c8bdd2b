# Two commands: `make test` runs every test and every notebook, `make book` builds _build/html.
# A third where there is a GPU: `make gpu` tries everything on it, nine minutes at a time, into gpu.json.

PYTHON ?= python3
BIN    := .venv/bin
CACHE  := _build/.jupyter_cache
export PATH := $(CURDIR)/$(BIN):$(PATH)
# glibc hands every large block back to the system as soon as it is freed, and the next inner step
# asks for the same block again. To keep it makes training on a Linux CPU a good deal faster.
KEEP   := MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296

.PHONY: test book gpu clean

# What the notebooks print is kept in CACHE, so `make book` after `make test` executes none again. They run
# side by side, one thread each: small students gain next to nothing from a second.
test: .venv/installed $(CACHE)/for-this-library
	ruff check gtnlib tests
	ruff format --check --quiet gtnlib tests
	mypy
	$(KEEP) pytest -n auto --maxprocesses=4 --dist worksteal --cov=gtnlib --cov-fail-under=98 tests
	$(KEEP) OMP_NUM_THREADS=1 pytest --nbmake --nbmake-timeout=900 -n auto --maxprocesses=4 notebooks

book: .venv/installed $(CACHE)/for-this-library
	$(KEEP) jupyter-book build --all -W -n --keep-going .

gpu: .venv/installed
	$(KEEP) python tests/benchmarks/gpu.py $(ARGS)

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

# The cache knows a notebook by its code alone: what an older library printed must go.
$(CACHE)/for-this-library: .venv/installed $(shell find gtnlib -type f -not -name '*.pyc')
	rm -rf $(CACHE)
	mkdir -p $(CACHE)
	touch $@

clean:
	rm -rf _build .venv
