# `make demo` and `make test` need Python 3.11 or newer and nothing else: the environment is made when it is missing or out of date.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.installed

# Several processes share the cores while testing; one thread each is fastest.
TESTENV := PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MPLBACKEND=Agg
WORKERS ?= 2

# The notebooks that take longest: run by `make test-slow`.
SLOW_NOTEBOOKS := 06b_targets|08_kfold|09b_featurefolds|12b_find|12e_interpretation|16_dynamics|16b_noise_layers|16c_joint|16e_weights|18_recipe|18b_retrain|19f_dividemix|19h_instancegm|19i_methods|19j_trainrun|index

.PHONY: help demo test test-slow check pytest nbtest test-lowest test-browser test-clusters test-labelstudio tutorials bench docs export readme clean
.NOTPARALLEL:

help:    ## What can be made
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 22

$(READY): settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'fastclean needs Python 3.11 or newer: make PYTHON=python3.12 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo 'Installing into $(VENV): some minutes and 6 GB the first time.'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev,docs]'
	@touch $@

demo: $(READY)    ## Find flipped labels in scikit-learn's digits
	$(BIN)/fastclean demo
	@echo 'For fastclean in this terminal:  source $(VENV)/bin/activate'

test: check pytest nbtest    ## The tests that need nothing but Python: a quarter of an hour on two cores

test-slow: $(READY)    ## The long ones among them: kills, whole trainings, commands from end to end
	$(TESTENV) python -m pytest -m slow -n $(WORKERS) --durations 10
	$(TESTENV) nbdev-test --n-workers $(WORKERS) --timing --do-print --file-re '^($(SLOW_NOTEBOOKS))\.ipynb'

check: $(READY)    ## Are modules and README in step with the notebooks?
	$(TESTENV) python tools/check_export.py
	$(TESTENV) python tools/readme.py --check

pytest: $(READY)    ## Those in tests/
	$(TESTENV) python -m pytest -m 'not slow and not browser and not cluster' -n $(WORKERS) --dist loadfile --durations 20

nbtest: $(READY)    ## Those of the notebooks
	$(TESTENV) nbdev-test --n-workers $(WORKERS) --timing --do-print --skip-file-re '^([_.]|($(SLOW_NOTEBOOKS))\.ipynb)'

$(VENV)/lowest: settings.ini tools/lowest.py $(READY)
	rm -rf $@
	$(BIN)/python tools/lowest.py install $@

test-lowest: $(VENV)/lowest    ## The quick tests with the oldest versions that settings.ini names
	$(TESTENV) PYTHONPATH="$(CURDIR)/$(VENV)/lowest" python tools/lowest.py check
	$(TESTENV) PYTHONPATH="$(CURDIR)/$(VENV)/lowest" python -m pytest -m 'not slow and not browser and not cluster' -n $(WORKERS) --dist loadfile

test-browser: $(READY)    ## The report, the audit and the review in a real browser (Debian: apt-get install chromium)
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { echo 'No Chromium found: apt-get install chromium' >&2; exit 1; }
	$(TESTENV) python -m pytest -m browser -n $(WORKERS) tests/test_report.py tests/test_audit.py tests/test_app.py

$(VENV)/.clusters: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cluster]'
	@touch $@

test-clusters: $(VENV)/.clusters    ## Folds and features on Dask and Ray, which are installed: several processes, and the loss of one
	$(TESTENV) python -m pytest -m cluster --durations 5 tests/test_clusters.py

LABELSTUDIO ?= $(VENV)/labelstudio/bin/label-studio
$(VENV)/labelstudio/bin/label-studio:
	$(PYTHON) -m venv $(VENV)/labelstudio
	@echo 'Installing Label Studio into $(VENV)/labelstudio: a minute or two and 1 GB the first time.'
	$(VENV)/labelstudio/bin/python -m pip install --quiet --disable-pip-version-check 'label-studio==1.23.2'

test-labelstudio: $(READY) $(LABELSTUDIO)    ## The backend against a real Label Studio, which is installed and started; in a browser, too
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { echo 'No Chromium found: apt-get install chromium' >&2; exit 1; }
	$(TESTENV) python tests/label_studio.py '$(LABELSTUDIO)' python -m pytest tests/test_labelstudio.py -rs -s

tutorials: $(READY) $(LABELSTUDIO)    ## The tutorials in their small setting; their data lie in fastai's data folder or are downloaded
	$(TESTENV) PATH="$(CURDIR)/$(BIN):$$PATH:$(abspath $(dir $(LABELSTUDIO)))" python tools/tutorials.py

bench: $(READY)    ## What is faster, and by how much; it takes 16 GB of memory, and a machine that does nothing else
	PATH="$(CURDIR)/$(BIN):$$PATH" MPLBACKEND=Agg python benchmarks/bench.py run

docs: $(READY)    ## The documentation site, in _docs/html: a broken link or another warning is an error
	$(TESTENV) python tools/docs.py --build

export: $(READY)    ## Write the modules from the notebooks
	$(TESTENV) nbdev-export
	$(TESTENV) nbdev-clean

readme: $(READY)    ## Write README.md from nbs/index.ipynb
	$(TESTENV) python tools/readme.py

clean:    ## Remove the environment and everything that can be made again
	rm -rf $(VENV) fastclean-demo build dist _proc _docs .pytest_cache *.egg-info
	find fastclean tests tools nbs -name __pycache__ -prune -exec rm -rf {} +
