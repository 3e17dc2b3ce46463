#!/usr/bin/env bash
# Installs what this folder holds, once, and measures: bash run.sh [options of benchmarks/gpu.py]
# PYTHON names the Python that has torch; EXPOST_SITE the folder to install into (site, beside this file, unless given).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
site=${EXPOST_SITE:-$here/site}
python=
for each in ${PYTHON:+"$PYTHON"} python3 python; do
  if command -v "$each" >/dev/null && "$each" -c 'import importlib.util as i, sys; sys.exit(not i.find_spec("torch"))' 2>/dev/null; then
    python=$each
    break
  fi
done
[ -n "$python" ] || { echo "error: no Python here has torch; name one that has: PYTHON=/path/to/python3 bash run.sh" >&2; exit 1; }
"$python" "$here/install.py" "$here" "$site"
export PYTHONPATH="$site/lib${PYTHONPATH:+:$PYTHONPATH}" EXPOST_DATA="$site/data" EXPOST_WEIGHTS="$site/weights"
mkdir -p "$EXPOST_DATA" "$EXPOST_WEIGHTS"
exec "$python" "$site/code/benchmarks/gpu.py" "$@"
