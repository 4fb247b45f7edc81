# Sourced by the scripts: runs one of the modules in scripts/lib/tools/release with Python alone, from wherever the script was called.

sens_python() { # module, then its arguments; replaces the script
    local lib python module=$1
    shift
    lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
    for python in "${SENS_PYTHON:-}" python3 python3.13 python3.12 python3.14; do
        if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then
            PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$lib exec "$python" -P -m "tools.release.$module" "$@"
        fi
    done
    echo "$(basename "$0"): Python 3.12 or newer is missing: install it, or name one in SENS_PYTHON." >&2
    exit 1
}
