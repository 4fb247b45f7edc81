# Sourced by the scripts: runs one of the modules in scripts/lib/tools/release, from wherever the script was called.

sens_lib=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

sens_python() { # module, then its arguments; replaces the script
    local python module=$1
    shift
    for python in "${SENS_PYTHON:-}" python3 python3.13 python3.12 python3.14; do
        if [ -n "$python" ] && "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then
            case $module in deploy_test | promote | rollback | store_digests) python=$(sens_with_libraries "$python") || exit 1 ;; esac
            PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=$sens_lib exec "$python" -P -m "tools.release.$module" "$@"
        fi
    done
    echo "$(basename "$0"): Python 3.12 or newer is missing: install it, or name one in SENS_PYTHON." >&2
    exit 1
}

sens_with_libraries() { # interpreter: prints it, or where it lacks the library for YAML, that of an environment which is made once
    local environment=$sens_lib/.venv
    if "$1" -c 'import yaml' >/dev/null 2>&1; then
        echo "$1"
    elif "$environment/bin/python" -c 'import yaml' >/dev/null 2>&1 || { "$1" -m venv --clear "$environment" &&
        "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r "$sens_lib/requirements.txt"; } >&2; then
        echo "$environment/bin/python"
    else
        echo "$(basename "$0"): PyYAML is missing, and could not be installed: install it, or name a Python that has it in SENS_PYTHON." >&2
        return 1
    fi
}
