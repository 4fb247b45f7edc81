# Sourced by the scripts: finds a Python, makes .venv from the hashed locks, and reuses it when nothing changed.
# Sets SENS_PYTHON and SENS_UV. Call from the repository's root.

sens_usable_python() { # 0 when $1 is a Python >= 3.12 that can make virtual environments
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1
}

sens_find_python() { # prints the path of the first usable interpreter
    local candidate folder user_home
    user_home=$(eval echo "~$(id -un)")
    for candidate in "${SENS_BASE_PYTHON:-}" python3 python3.13 python3.12 python3.14 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 && sens_usable_python "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    # Version managers keep interpreters that are not on PATH; a shim on PATH tells where pyenv's folder is.
    for folder in "${PYENV_ROOT:-}/versions" "$HOME/.pyenv/versions" "$user_home/.pyenv/versions" \
        "$(command -v pyenv 2>/dev/null | sed 's|/bin/pyenv$|/versions|')" \
        "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}" "$HOME/.asdf/installs/python" \
        "$HOME/.local/share/mise/installs/python" "$HOME/.local/share/rtx/installs/python" \
        /opt/homebrew/opt /usr/local/opt /opt/python /opt/pyenv/versions; do
        for candidate in "$folder"/*3.13*/bin/python3 "$folder"/*3.12*/bin/python3 "$folder"/*3.14*/bin/python3; do
            if [ -x "$candidate" ] && sens_usable_python "$candidate"; then
                echo "$candidate"
                return 0
            fi
        done
    done
    return 1
}

sens_environment() { # profile: run or dev (dev holds all that run holds)
    local profile=$1 stamp base index certificates
    SENS_PYTHON=$PWD/.venv/bin/python
    SENS_UV=$PWD/.venv/bin/uv
    stamp="$PWD $(cat requirements/bootstrap.txt "requirements/$profile.txt" pyproject.toml services/*/pyproject.toml | cksum)"
    if [ -x "$SENS_PYTHON" ] && { [ "$(cat ".venv/.sens-$profile" 2>/dev/null)" = "$stamp" ]; }; then
        return 0
    fi
    if ! base=$(sens_find_python); then
        echo "Python 3.12 or newer with its venv module is missing: install it (for example 'apt install python3 python3-venv', or pyenv), or name one in SENS_BASE_PYTHON." >&2
        return 1
    fi
    # A cache that can't be written to must not stop the installation.
    if ! mkdir -p "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}" 2>/dev/null; then
        export XDG_CACHE_HOME=$PWD/.venv/cache
    fi
    echo "Making the environment in .venv with $base" >&2
    if [ ! -x "$SENS_PYTHON" ] || [ "$(head -n 1 .venv/.sens-home 2>/dev/null)" != "$PWD" ] || ! "$SENS_PYTHON" -c '' 2>/dev/null; then
        "$base" -m venv --clear .venv
        echo "$PWD" > .venv/.sens-home
    fi
    "$SENS_PYTHON" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/bootstrap.txt
    # uv does not read pip's configuration: a package index that is set there holds for both.
    if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && index=$("$SENS_PYTHON" -m pip config get global.index-url 2>/dev/null); then
        export UV_DEFAULT_INDEX=$index
    elif [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && [ -n "${PIP_INDEX_URL:-}" ]; then
        export UV_DEFAULT_INDEX=$PIP_INDEX_URL
    fi
    # The same holds for the certificate authority of a network that has its own.
    if [ -z "${SSL_CERT_FILE:-}" ]; then
        certificates=${PIP_CERT:-$("$SENS_PYTHON" -m pip config get global.cert 2>/dev/null || true)}
        [ -z "$certificates" ] || export SSL_CERT_FILE=$certificates
    fi
    VIRTUAL_ENV=$PWD/.venv "$SENS_UV" pip install --quiet --require-hashes --no-deps -r "requirements/$profile.txt"
    local package editable=()
    for package in services/*/; do
        editable+=(--editable "${package%/}")
    done
    VIRTUAL_ENV=$PWD/.venv "$SENS_UV" pip install --quiet --no-deps --no-build-isolation --offline "${editable[@]}"
    echo "$stamp" > ".venv/.sens-$profile"
    [ "$profile" != dev ] || echo "$PWD $(cat requirements/bootstrap.txt requirements/run.txt pyproject.toml services/*/pyproject.toml | cksum)" > .venv/.sens-run
}
