# Sourced by the scripts: finds a Python, makes .venv from the hashed locks, and reuses it when nothing changed.
# Sets SENS_PYTHON and SENS_UV. Call from the repository's root.

sens_usable_python() { # interpreter, modules: prints its path when it is a Python >= 3.12 that has them
    "$1" -c "import sys, $2; sys.exit(1) if sys.version_info < (3, 12) else print(sys.executable)" 2>/dev/null
}

sens_find_python() { # modules, those of virtual environments unless others are named: prints the path of the first usable interpreter
    local candidate folder user_home modules=${1:-venv, ensurepip}
    for candidate in "${SENS_BASE_PYTHON:-}" python3 python3.13 python3.12 python3.14 python; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null 2>&1 && sens_usable_python "$candidate" "$modules"; then
            return 0
        fi
    done
    user_home=$(eval echo "~$(id -un)")
    # Version managers keep interpreters that are not on PATH; a shim on PATH tells where pyenv's folder is.
    for folder in "${PYENV_ROOT:-}/versions" "$HOME/.pyenv/versions" "$user_home/.pyenv/versions" \
        "$(command -v pyenv 2>/dev/null | sed 's|/bin/pyenv$|/versions|')" \
        "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}" "$HOME/.asdf/installs/python" \
        "$HOME/.local/share/mise/installs/python" "$HOME/.local/share/rtx/installs/python" \
        /opt/homebrew/opt /usr/local/opt /opt/python /opt/pyenv/versions; do
        for candidate in "$folder"/*3.13*/bin/python3 "$folder"/*3.12*/bin/python3 "$folder"/*3.14*/bin/python3; do
            if [ -x "$candidate" ] && sens_usable_python "$candidate" "$modules" >/dev/null; then
                echo "$candidate"
                return 0
            fi
        done
    done
    return 1
}

sens_python_is() { # interpreter, code: 0 when it can run the code
    "$1" -c "$2" >/dev/null 2>&1
}

sens_explain_python() { # prints which Pythons there are, why none will do, and a way to one that will, on this system
    local candidate path version found=() without_venv="" any="" seen=" "
    for candidate in "${SENS_BASE_PYTHON:-}" python3 python3.14 python3.13 python3.12 python; do
        if [ -z "$candidate" ] || ! path=$(command -v "$candidate"); then continue; fi
        version=$("$path" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || continue
        case "$seen" in *" $version "*) continue ;; esac
        seen="$seen$version "
        if sens_python_is "$path" 'import sys; sys.exit(sys.version_info < (3, 12))'; then
            found+=("Python $version ($path) lacks its venv module")
            without_venv=${without_venv:-${version%.*}}
        else
            found+=("Python $version ($path) is too old")
            any=${any:-$path}
        fi
    done
    echo "The platform needs Python 3.12 or newer with its venv module."
    if [ ${#found[@]} -eq 0 ]; then echo "No Python was found."; else printf '%s.\n' "${found[@]}"; fi
    echo "On this system: $(sens_python_advice "$without_venv" "$any")"
    echo "Then start this again. An interpreter in another place can be named in SENS_BASE_PYTHON."
}

sens_python_advice() { # version that lacks venv, path of an older Python (each may be empty): prints a command
    local version
    if [ -n "$1" ] && command -v apt-get >/dev/null; then
        echo "sudo apt install python$1-venv"
        return
    fi
    if command -v apt-cache >/dev/null; then
        for version in 3.13 3.12 3.14; do
            if apt-cache policy "python$version" 2>/dev/null | grep -q 'Candidate: [0-9]'; then
                echo "sudo apt install python$version python$version-venv"
                return
            fi
        done
    fi
    if command -v uv >/dev/null; then
        echo "uv python install 3.13"
    elif command -v brew >/dev/null; then
        echo "brew install python@3.13"
    elif command -v dnf >/dev/null; then
        echo "sudo dnf install python3.12"
    elif command -v zypper >/dev/null; then
        echo "sudo zypper install python312"
    elif command -v pacman >/dev/null; then
        echo "sudo pacman -S python"
    elif command -v apk >/dev/null; then
        echo "apk add python3"
    elif [ -n "$2" ] && sens_python_is "$2" 'import venv, ensurepip'; then
        # uv brings a Python of its own, which is looked for where it puts it.
        echo "$2 -m venv ~/.local/share/uv-tool && ~/.local/share/uv-tool/bin/pip install uv && ~/.local/share/uv-tool/bin/uv python install 3.13"
    elif [ -n "$2" ] && command -v apt-get >/dev/null; then
        echo "sudo apt install python3-venv && $2 -m venv ~/.local/share/uv-tool && ~/.local/share/uv-tool/bin/pip install uv && ~/.local/share/uv-tool/bin/uv python install 3.13"
    else
        echo "install Python 3.13, for example from https://www.python.org/downloads/ or with pyenv"
    fi
}

sens_stamp() { # profile: prints a sum of everything that its environment is made from
    # Of the root's pyproject.toml the services take the version alone; the rest are settings of checks and tests.
    echo "$PWD $({ cat requirements/bootstrap.txt "requirements/$1.txt" services/*/pyproject.toml && grep '^version' pyproject.toml; } | cksum)"
}

sens_is_current() { # profile: 0 when the environment was made for it, from what is there now
    [ -x "$SENS_PYTHON" ] && [ "$(cat ".venv/.sens-$1" 2>/dev/null)" = "$(sens_stamp "$1")" ]
}

sens_environment() { # profile: run or dev (dev holds all that run holds)
    local profile=$1 base
    SENS_PYTHON=$PWD/.venv/bin/python
    SENS_UV=$PWD/.venv/bin/uv
    # Where Python may keep no bytecode, each new process compiles everything again, which takes longer than the rest of its work.
    unset PYTHONDONTWRITEBYTECODE
    sens_is_current "$profile" && return 0
    if ! base=$(sens_find_python); then
        sens_explain_python >&2
        return 1
    fi
    if ! sens_make_environment "$profile" "$base"; then
        echo "The environment in .venv could not be made; the lines above say why. Is the package index reachable?" >&2
        return 1
    fi
}

sens_step() { # number, what is installed
    echo "  $1 of 4: $2" >&2
}

sens_make_environment() ( # profile, base interpreter
    profile=$1
    base=$2
    # A cache that can't be written to must not stop the installation.
    if ! mkdir -p "${XDG_CACHE_HOME:-${HOME:-/nonexistent}/.cache}" 2>/dev/null; then
        export XDG_CACHE_HOME=$PWD/.venv/cache
    fi
    echo "Making the environment in .venv with $base; this is done once, and takes a minute or so" >&2
    # People see what is being downloaded, logs do not.
    quiet=(--quiet)
    if [ -t 2 ]; then quiet=(); fi
    # What an older lock left behind must not be what the code is tested with.
    fresh=false
    for other in run dev; do
        if [ -f ".venv/.sens-$other" ] && ! sens_is_current "$other"; then fresh=true; fi
    done
    if $fresh || [ ! -f .venv/.sens-home ] || [ "$(cat .venv/.sens-home)" != "$PWD" ] || ! "$SENS_PYTHON" -c '' 2>/dev/null; then
        sens_step 1 "an empty environment"
        "$base" -m venv --clear .venv || exit 1
        echo "$PWD" > .venv/.sens-home
    fi
    sens_step 2 "the installer"
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
    sens_step 3 "$(grep -c '==' "requirements/$profile.txt") packages from the package index"
    VIRTUAL_ENV=$PWD/.venv "$SENS_UV" pip install ${quiet[@]+"${quiet[@]}"} --compile-bytecode --require-hashes --no-deps -r "requirements/$profile.txt" || exit 1
    sens_step 4 "the platform itself"
    editable=()
    for package in services/*/; do
        editable+=(--editable "${package%/}")
    done
    VIRTUAL_ENV=$PWD/.venv "$SENS_UV" pip install --quiet --no-deps --no-build-isolation --offline "${editable[@]}" || exit 1
    sens_stamp "$profile" > ".venv/.sens-$profile"
    if [ "$profile" = dev ]; then sens_stamp run > .venv/.sens-run; fi
)
