# Sourced by scripts whose program needs Python alone: it is run without an environment, from whatever folder the script was called.

sens_tool() { # module of tools, then its arguments; replaces the script
    local root python
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    . "$root/scripts/lib/environment.sh"
    python=$(sens_find_python os) || {
        echo "scripts/$(basename "$0"): Python 3.12 or newer is missing: install it, or name one in SENS_BASE_PYTHON." >&2
        exit 1
    }
    PYTHONPATH=$root:$root/services/cli/src exec "$python" -P -m "$@"
}
