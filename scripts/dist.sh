#!/bin/sh
# dist.sh TOOLS PYTHON... - build the sdist and the wheels of this version into dist/: for each PYTHON one, but for all from
# 3.12 on the one of the stable ABI.
#
# TOOLS is a Python with the packages of the extras build and release. Intermediate files are in build/dist. The wheels are
# built from the sdist, so that a file missing there is noticed.
set -eu

tools=$(realpath --no-symlinks "$1")
shift
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' aiod/__init__.py)
work=$PWD/build/dist
dist=$PWD/dist
sdist=$dist/aiod_io-$version.tar.gz
export AIOD_NATIVE=1

step() { echo "dist $version: $*"; }
fail() { echo "dist $version: $*" >&2; exit 1; }

# The sdist must contain every file except .ci/ that git does not ignore, and no other: an editor's backup file would be
# published.
build_sdist() {
    "$tools" -c 'import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])' "$dist" >"$work/sdist.log"
    [ -e "$sdist" ] || fail "$sdist was not made; the log is $work/sdist.log"
    git rev-parse --git-dir >/dev/null 2>&1 || return 0
    git ls-files --cached --others --exclude-standard | grep -v '^\.ci/' | sort >"$work/wanted"
    tar -tzf "$sdist" | sed "s|^aiod_io-$version/||" | grep -v '/$' | grep -vx 'PKG-INFO' | sort >"$work/packed"
    diff "$work/wanted" "$work/packed" >"$work/sdist.diff" || {
        cat "$work/sdist.diff"
        fail "the sdist is not what git has (<: missing, >: not in git)"
    }
}

# auditwheel names the oldest glibc that the wheel runs on, and puts liburing into it; an index accepts no wheel without.
build_wheel() { # PYTHON
    tag=$("$1" -c 'import sys; print("cp%d%d" % sys.version_info[:2] if sys.version_info < (3, 12) else "abi3")')
    for each in "$dist"/aiod_io-*"$tag"*.whl; do
        [ ! -e "$each" ] || return 0
    done
    step "the wheel $tag, by $("$1" -V)"
    (cd "$work/aiod_io-$version" && PYTHON=$1 AIOD_TOOLS=$work/tools-$tag scripts/build-wheel.sh "$work/$tag")
    PATH=$(dirname "$tools"):$PATH "$tools" -m auditwheel repair --wheel-dir "$dist" "$work/$tag"/wheels/aiod_io-*.whl \
        >"$work/auditwheel.log" 2>&1 || { cat "$work/auditwheel.log"; fail "auditwheel refuses the wheel"; }
}

rm -rf "$dist" "$work"/aiod_io-*
mkdir -p "$dist" "$work"
step "the sdist"
build_sdist
tar -xzf "$sdist" -C "$work"
for python in "$@"; do
    build_wheel "$(command -v "$python")"
done
"$tools" -m twine check --strict "$dist"/*
ls dist/*
