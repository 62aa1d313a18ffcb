#!/usr/bin/env bash
# Builds the sdist and, from it, the wheel; installs the wheel with the core dependencies alone into
# an empty environment; uses it there. Prints sizes and seconds. Usage: scripts/smoke.sh PYTHON
# (one that has the package "build").
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
case $1 in /*) python=$1 ;; *) python=$PWD/$1 ;; esac
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT

echo "Building sdist and wheel ..."
"$python" -m build --outdir "$room" . >"$room/build.log" 2>&1 || { cat "$room/build.log"; exit 1; }
for built in "$room"/tinylora-*; do
    echo "  $(basename "$built"): $(($(stat -c %s "$built") / 1024)) KiB"
done

"$python" -m venv "$room/env"
start=$SECONDS
"$room/env/bin/python" -m pip install -qq --disable-pip-version-check \
    -c "$repository/constraints.txt" "$room"/tinylora-*.whl
echo "Installed in $((SECONDS - start)) s: $(du -sm "$room/env" | cut -f1) MB," \
    "$("$room/env/bin/python" -m pip list --disable-pip-version-check 2>/dev/null | tail -n +3 | wc -l) packages"

cd "$room"  # away from the checkout
export PYTHONPATH="" PATH="$room/env/bin:$PATH" TINYLORA_CACHE="$room/cache"
python - <<'PYTHON'
import importlib.util
import sys

import tinylora

extras = ["datasets", "matplotlib", "pyarrow", "pandas", "ray", "bitsandbytes", "gguf"]
found = [name for name in extras if importlib.util.find_spec(name)]
if found or not tinylora.__file__.startswith(sys.prefix):
    sys.exit(f"Not the environment that was meant: {found}, {tinylora.__file__}")
PYTHON
start=$SECONDS
tinylora --version
printf '{"prompt": "2 + %s = ? Answer after ####.", "answer": "%s"}\n' 1 3 2 4 3 5 4 6 >sums.jsonl
tinylora train "$repository/recipes/pocket/demo.yaml" --steps 2 --eval-problems 32 --output run
tinylora train --task sums.jsonl --answer-format hash --steps 1 --eval-samples 1 --output own
tinylora eval --adapter run --problems 32
tinylora inspect run
tinylora check-rewards pocket --problems 50
tinylora export run --to lora --out lora
tinylora export run --to merged --out merged
for refused in "figures run --out pictures" "export run --to gguf --out file"; do
    if tinylora $refused 2>said; then echo "tinylora $refused should need an extra"; exit 1; fi
    grep -q "pip install" said && cat said
done
echo "The smoke test passed in $((SECONDS - start)) s."
