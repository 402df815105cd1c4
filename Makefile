# Two commands matter: `make discover` and `make test`. Each creates what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1

.PHONY: discover docs pictures screenshots lighthouse gpaw test test-wheel test-cluster test-cluster-faults check env clean

discover: $(VENV)/.ready
	$(BIN)/pccd quickstart

test: $(VENV)/.ready
	$(BIN)/python -m pytest

# the wheel, in an empty environment of its own, outside the clone
test-wheel: $(VENV)/.ready
	tests/wheel.sh $(BIN)/python

# on a private Slurm; skipped where slurm-wlm and munge are not installed or you are not root
test-cluster: $(VENV)/.ready
	$(BIN)/python -m pytest tests/cluster -m cluster

# PBE without a VASP licence; compiles in about a minute against libxc-dev and libopenblas-dev
gpaw: $(VENV)/.ready
	GPAW_CONFIG=$(CURDIR)/db_config/gpaw_siteconfig.py $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gpaw]'

# whatever dies on a cluster, one after the other; by hand, five to ten minutes
test-cluster-faults: $(VENV)/.ready
	$(BIN)/python -m pytest tests/cluster -m cluster_faults -s

# docs/images: every page of explorer and report; needs chromium
screenshots: $(VENV)/.ready
	PYTHONPATH=tests $(BIN)/python tests/screenshots.py

# accessibility, performance and good practice of explorer and report, judged by Lighthouse; needs
# chromium and `npm install --no-save lighthouse`
lighthouse: $(VENV)/.ready
	PYTHONPATH=tests $(BIN)/python tests/lighthouse.py

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# the site, into build/site: no warnings, no broken links, nothing that needs a network
docs: $(VENV)/.ready
	$(BIN)/python docs/_site/stage.py build/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	$(BIN)/python docs/_site/offline.py build/site

# what README and tour show of the example campaign; after `make discover`, needs chromium
pictures: $(VENV)/.ready
	$(BIN)/python docs/_site/pictures.py

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pccd_workflows needs Python 3.11 or newer; use make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[workflow,vasp,mp,train,test,docs]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
