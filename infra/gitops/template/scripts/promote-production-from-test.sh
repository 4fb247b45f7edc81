#!/usr/bin/env bash
# Proposes for production what test runs; --help tells the options.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${SENS_PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null; then
    echo "scripts/promote-production-from-test.sh: Python 3.12 or newer is missing: install it, or name one in SENS_PYTHON." >&2
    exit 1
fi
# Nothing is written into the clone but what is released.
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$root exec "$python" -P -m scripts.lib.release.promote "$@"
