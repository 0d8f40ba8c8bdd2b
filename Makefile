# Two commands: `make test` runs every test and every notebook, `make book` builds _build/html.

PYTHON ?= python3
BIN    := .venv/bin
CACHE  := _build/.jupyter_cache
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: test book clean

# What the notebooks print is kept in CACHE, so `make book` after `make test` executes none again.
test: .venv/installed $(CACHE)/for-this-library
	pytest tests
	pytest --nbmake --nbmake-timeout=900 notebooks

book: .venv/installed $(CACHE)/for-this-library
	jupyter-book build --all -W -n --keep-going .

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
