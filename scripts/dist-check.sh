#!/bin/sh
# dist-check.sh PYTHON... - check what `make dist` has put into dist/ with each PYTHON: install the wheel into a clean
# environment, and run the client's tests with what is installed; the client alone; the sdist without a compiler.
#
# The environments are in build/dist-check. The tests are those of the sdist, from which the packages are removed.
set -eu

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' aiod/__init__.py)
work=$PWD/build/dist-check
dist=$PWD/dist
sdist=$dist/aiod_io-$version.tar.gz
tests=$work/aiod_io-$version

step() { echo "dist-check $version: $*"; }
fail() { echo "dist-check $version: $*" >&2; exit 1; }

environment() { # NAME PYTHON REQUIREMENT...: a clean one
    name=$work/$1 python=$2
    shift 2
    "$python" -m venv --clear "$name"
    "$name/bin/python" -m pip --disable-pip-version-check --quiet install --only-binary=aiod-io --find-links "$dist" "$@"
    "$name/bin/python" -m pip --disable-pip-version-check check
}

# The daemon and the client from the wheel.
check_all() { # PYTHON
    step "$("$1" -V): the wheel, and the client's tests"
    environment all "$1" "aiod-io[daemon]==$version" hypothesis pytest pytest-timeout pytest-xdist
    for command in aiod aiodctl; do
        [ "$("$work/all/bin/$command" --version)" = "$command, version $version" ] || fail "$command --version"
    done
    (cd "$tests" && "$work/all/bin/python" -m pytest --quiet --numprocesses 2 --dist loadfile tests/client)
}

# Without the packages of the daemon.
check_client() { # PYTHON
    step "$("$1" -V): the client alone"
    environment client "$1" "aiod-io==$version"
    "$work/client/bin/python" -c "
import aiod_client.aio, importlib.metadata
from aiod_client.ring import native
assert native.ring is not None, native.lacking
assert importlib.metadata.version('aiod-io') == '$version'"
    for command in aiod aiodctl; do
        ! "$work/client/bin/$command" --version 2>"$work/said" || fail "$command runs without its packages"
        grep -q "aiod-io\[daemon\]" "$work/said" || { cat "$work/said"; fail "$command does not name aiod-io[daemon]"; }
    done
}

# From the sdist; with a daemon of the other environment.
check_without_compiler() { # PYTHON
    step "$("$1" -V): the sdist without a compiler"
    "$1" -m venv --clear "$work/pure"
    env -u AIOD_NATIVE CC=/bin/false CXX=/bin/false \
        "$work/pure/bin/python" -m pip --disable-pip-version-check --quiet install "$sdist"
    runtime=$(mktemp -d /tmp/aiod.XXXXXX)
    mkdir "$runtime/scratch"
    printf 'runtime_dir = "%s/run"\n[exports.scratch]\npath = "%s/scratch"\n' "$runtime" "$runtime" >"$runtime/aiod.toml"
    "$work/all/bin/aiod" --config "$runtime/aiod.toml" 2>"$runtime/log" &
    daemon=$!
    trap 'kill "$daemon"; wait "$daemon" || true; rm -rf "$runtime"' EXIT
    AIOD_ENDPOINT=ipc://$runtime/run/aiod.sock "$work/all/bin/aiodctl" ping --wait 60 >/dev/null
    AIOD_ENDPOINT=ipc://$runtime/run/aiod.sock "$work/pure/bin/python" -c "
import aiod_client
with aiod_client.connect() as client, client.open('scratch/file', 'w+') as file:
    file.pwrite(b'data', 0)
    assert file.pread(4, 0) == b'data'" 2>"$work/said"
    grep -q "no shared-memory ring, all requests go by ZeroMQ" "$work/said" || { cat "$work/said"; fail "it has a ring"; }
}

rm -rf "$work"
mkdir -p "$work"
tar -xzf "$sdist" -C "$work"
rm -r "$tests/aiod" "$tests/clients/python/aiod_client" "$tests/protocol/aiod_protocol"
for python in "$@"; do
    check_all "$(command -v "$python")"
    check_client "$(command -v "$python")"
done
check_without_compiler "$(command -v "$1")"
step "all passed"
