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

sens_stamp() { # profile: prints what its environment was, or would be, made from
    echo "$PWD $(cat requirements/bootstrap.txt "requirements/$1.txt" pyproject.toml services/*/pyproject.toml | cksum)"
}

sens_is_current() { # profile: 0 when the environment was made for it, from what is there now
    [ -x "$SENS_PYTHON" ] && [ "$(cat ".venv/.sens-$1" 2>/dev/null)" = "$(sens_stamp "$1")" ]
}

sens_environment() { # profile: run or dev (dev holds all that run holds)
    local profile=$1 base
    SENS_PYTHON=$PWD/.venv/bin/python
    SENS_UV=$PWD/.venv/bin/uv
    # Where Python may keep no bytecode, each process that starts compiles everything anew, which takes longer than all else it does.
    unset PYTHONDONTWRITEBYTECODE
    sens_is_current "$profile" && return 0
    if ! base=$(sens_find_python); then
        echo "Python 3.12 or newer with its venv module is missing: install it (for example 'apt install python3 python3-venv', or pyenv), or name one in SENS_BASE_PYTHON." >&2
        return 1
    fi
    if ! sens_make_environment "$profile" "$base"; then
        echo "The environment in .venv could not be made; the lines above say why. Is the package index reachable?" >&2
        return 1
    fi
}

sens_make_environment() ( # profile, base interpreter
    profile=$1
    base=$2
    # A cache that can't be written to must not stop the installation.
    if ! mkdir -p "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}" 2>/dev/null; then
        export XDG_CACHE_HOME=$PWD/.venv/cache
    fi
    echo "Making the environment in .venv with $base" >&2
    # What an older lock left behind must not be what the code is tested with.
    fresh=false
    for other in run dev; do
        if [ -f ".venv/.sens-$other" ] && ! sens_is_current "$other"; then fresh=true; fi
    done
    if $fresh || [ ! -f .venv/.sens-home ] || [ "$(cat .venv/.sens-home)" != "$PWD" ] || ! "$SENS_PYTHON" -c '' 2>/dev/null; then
        "$base" -m venv --clear .venv || exit 1
        echo "$PWD" > .venv/.sens-home
    fi
    "$SENS_PYTHON" -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements/bootstrap.txt || exit 1
    # uv does not read pip's configuration: a package index that is set there holds for both.
    if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && index=$("$SENS_PYTHON" -m pip config get global.index-url 2>/dev/null); then
        export UV_DEFAULT_INDEX=$index
    elif [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && [ -n "${PIP_INDEX_URL:-}" ]; then
        export UV_DEFAULT_INDEX=$PIP_INDEX_URL
    fi
    # Like pip, trust the authorities that this system trusts, or the one that pip is told of.
    export UV_SYSTEM_CERTS=${UV_SYSTEM_CERTS:-true}
    if [ -z "${SSL_CERT_FILE:-}" ] && certificates=${PIP_CERT:-$("$SENS_PYTHON" -m pip config get global.cert 2>/dev/null)}; then
        export SSL_CERT_FILE=$certificates
    fi
    VIRTUAL_ENV=$PWD/.venv "$SENS_UV" pip install --quiet --compile-bytecode --require-hashes --no-deps -r "requirements/$profile.txt" || exit 1
    editable=()
    for package in services/*/; do
        editable+=(--editable "${package%/}")
    done
    VIRTUAL_ENV=$PWD/.venv "$SENS_UV" pip install --quiet --no-deps --no-build-isolation --offline "${editable[@]}" || exit 1
    sens_stamp "$profile" > ".venv/.sens-$profile"
    if [ "$profile" = dev ]; then sens_stamp run > .venv/.sens-run; fi
)
