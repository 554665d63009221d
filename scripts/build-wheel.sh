#!/bin/sh
# build-wheel.sh BUILD - build the wheel of this tree for the interpreter PYTHON (environment variable) in BUILD/wheels.
#
# The build requirements and pip are in the environment BUILD/tools (AIOD_TOOLS: in another directory), which stays, so
# that a rebuild takes seconds. They come from the index of packages that pip knows.
set -eu

build=$1
tools=${AIOD_TOOLS:-$build/tools}
python=$(command -v "${PYTHON:-python3}")
unset DESTDIR # make exports it, and CMake would use it

made_by="$python $("$python" -VV)"
if [ "$(cat "$tools/.made-by" 2>/dev/null)" != "$made_by" ]; then
    rm -rf "$tools"
    "$python" -m venv --symlinks "$tools"
    echo "$made_by" >"$tools/.made-by"
fi
mkdir -p "$build"
[ "$tools" = "$build/tools" ] || ln -sfn "$(realpath "$tools")" "$build/tools"
pip() { "$tools/bin/python" -m pip --disable-pip-version-check "$@"; }

"$tools/bin/python" -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*p["optional-dependencies"]["build"], sep="\n")' | pip install --quiet --requirement /dev/stdin
rm -rf "$build/wheels"
PATH=$(realpath "$tools")/bin:$PATH pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$build/wheels" \
    --config-settings=build-dir="$build/cmake" .
