#!/usr/bin/env bash
# Builds the sdist and from it the wheel, installs the wheel into an empty environment and runs a
# small campaign with it, away from the clone: two elements, CHGNet, the shipped references.
# Usage: tests/wheel.sh PYTHON, a Python that has the `build` package (`make test-wheel`).
set -euo pipefail
clone=$(cd "$(dirname "$0")/.." && pwd)
python=$(cd "$(dirname "$1")" && pwd)/$(basename "$1") # not resolved: a venv's python is a link
work=$(mktemp -d)
pccd=$work/venv/bin/pccd
trap '[ -x "$pccd" ] && "$pccd" db stop >/dev/null 2>&1; rm -rf "$work"' EXIT

# nothing of the clone, of this user or of an earlier run
unset PYTHONPATH
while read -r name; do unset "$name"; done < <(compgen -e | grep -E '^(PCCD|FW|JOBFLOW)_' || true)
export PCCD_CONFIG_FILE=/dev/null PCCD_DATA_DIR=$work/data
PCCD_MONGOD_PORT=$("$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export PCCD_MONGOD_PORT

"$python" -m build --outdir "$work/dist" "$clone" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
wheel=$(echo "$work"/dist/*.whl)
(cd "$clone" && git ls-files pccd_workflows db_config flows model) | "$python" -c '
import re, sys, zipfile
wanted = [n for n in sys.stdin.read().split() if not re.search(r"^model/.*/(figures/|metrics.json)", n)]
inside = {re.sub("^pccd_workflows/resources/", "", n) for n in zipfile.ZipFile(sys.argv[1]).namelist()}
assert wanted and set(wanted) <= inside, sorted(set(wanted) - inside)' "$wheel"
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --no-compile --constraint "$clone/constraints.txt" "$wheel[workflow]"

mkdir "$work/elsewhere" && cd "$work/elsewhere"
"$work/venv/bin/python" - "$work/venv" <<'END'
import sys, importlib.util, pccd_workflows
assert pccd_workflows.__file__.startswith(sys.argv[1]), pccd_workflows.__file__
for package in ("atomate2", "custodian", "mp_api"):
    assert importlib.util.find_spec(package) is None, f"the light core installs {package}"
END
cat >smallest.yaml <<'END'
name: smallest
generate: {elements: [Mg, O], samples: 8, shard: 8, seed: 7, sampler: {name: dpm-solver++, steps: 10}}
references: {source: prototypes}
rungs: [{level: chgnet, keep: {energy_above_hull: 1.0}, budget: {candidates: 2}, steps: 60}]
END
"$pccd" quickstart --dry-run >/dev/null
"$pccd" campaign run smallest.yaml --workers 1
"$pccd" candidate list --json | "$work/venv/bin/python" -c '
import json, sys
found = json.load(sys.stdin)
rows = found if isinstance(found, list) else found["candidates"]
assert rows, "no candidate"
print(f"{len(rows)} candidates from the wheel")'
