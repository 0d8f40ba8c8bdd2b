# Two commands: `make test` runs every test and every notebook, `make book` builds _build/html.

PYTHON ?= python3
BIN    := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: test book clean

test: .venv/installed
	pytest tests
	pytest --nbmake notebooks

book: .venv/installed
	jupyter-book build --all -W -n --keep-going .

.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	touch $@

clean:
	rm -rf _build .venv
