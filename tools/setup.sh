#!/bin/sh
# Makes .venv hold exactly what requirements.lock says, and this project itself (editable).
# Needs Python 3.11 or newer and nothing else; does nothing when the last run still holds.
set -eu
cd "$(dirname "$0")/.."

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

find_python() {
    for name in python3.11 python3 python3.12 python3.13; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    fail "needs Python 3.11 or newer; found $(python3 --version 2>/dev/null || echo none). On Debian: apt-get install python3"
}

# Debian ships Python without ensurepip, which `python -m venv` needs.
ensure_venv_module() {
    "$1" -c 'import ensurepip, venv' 2>/dev/null && return
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing python$version-venv"
        DEBIAN_FRONTEND=noninteractive
        export DEBIAN_FRONTEND
        { apt-get -qq update && apt-get -qq install -y --no-install-recommends "python$version-venv"; } \
            >/dev/null || fail "apt-get could not install python$version-venv"
    else
        fail "$1 has no ensurepip. Run: sudo apt-get install python$version-venv"
    fi
}

# uv reads no pip.conf; a machine whose pip is told of a mirror means it for uv as well.
follow_pip_settings() {
    if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ]; then
        mirror=$(.venv/bin/python -m pip config list | sed -n "s/^[^=]*\.index.url='\(.*\)'\$/\1/p" | tail -n 1)
        [ -z "$mirror" ] || { UV_DEFAULT_INDEX=$mirror; export UV_DEFAULT_INDEX; }
    fi
    : "${UV_SYSTEM_CERTS:=1}" "${UV_HTTP_TIMEOUT:=180}"
    export UV_SYSTEM_CERTS UV_HTTP_TIMEOUT
}

hash_of() { cat "$@" | sha256sum | cut -c1-32; }

lock=$(hash_of requirements.lock tools/setup.sh)
project=$(hash_of pyproject.toml)
stamp=.venv/setup.stamp
want="$lock $project $(pwd)"

if [ "$(cat "$stamp" 2>/dev/null || true)" != "$want" ]; then
    started=$(date +%s)
    # An environment knows its own path: one that was moved or copied here is made anew.
    if [ ! -x .venv/bin/python ] || ! grep -q -- "-m venv $(pwd)/.venv\$" .venv/pyvenv.cfg; then
        python=$(find_python)
        ensure_venv_module "$python"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    rm -f "$stamp"
    echo "setup: installing what requirements.lock names into .venv (7 GB; about a minute)"
    follow_pip_settings

    if ! .venv/bin/uv --version >/dev/null 2>&1; then
        pinned=$(mktemp)
        sed -n '/^uv==/,/[^\\]$/p' requirements.lock > "$pinned"
        .venv/bin/python -m pip install -q --require-hashes --no-deps -r "$pinned"
        rm -f "$pinned"
    fi
    quiet=-q
    [ ! -t 2 ] || quiet=  # somebody watches: show what is fetched
    .venv/bin/uv pip sync $quiet --python .venv/bin/python --compile-bytecode requirements.lock
    .venv/bin/uv pip install -q --python .venv/bin/python --offline --no-deps --no-build-isolation -e .

    echo "$want" > "$stamp"
    echo "setup: .venv is ready ($(($(date +%s) - started)) s)"
fi

# Imports are a third as fast without bytecode, and the environment may forbid Python to write it.
.venv/bin/python -m compileall -q schemas workers jobs cluster ||
    echo "setup: goes on without bytecode of the files above" >&2
