#!/bin/sh
# release.sh - complete dist/, where `make dist` has put the sdist and the wheels: add the Debian packages of build/packages,
# checked by lintian, and SHA256SUMS; note what is amiss for a release.
set -eu

version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' aiod/__init__.py)

note() { echo "release $version: note: $*"; }

if git rev-parse --git-dir >/dev/null 2>&1; then
    [ -z "$(git status --porcelain)" ] || note "the working tree has changes that are not committed"
    [ -n "$(git tag --points-at HEAD --list "v$version")" ] || note "HEAD has no tag v$version"
fi
grep -q "^## \[$version\]" CHANGELOG.md || note "CHANGELOG.md has no section [$version]: a trial, not a release"
! grep -q '\.example' pyproject.toml debian/control || note "pyproject.toml and debian/ name no public address yet (.example)"
if command -v lintian >/dev/null 2>&1; then
    lintian --allow-root --fail-on error,warning build/packages/*.changes
else
    note "lintian is not installed; it has not checked the packages"
fi
cp build/packages/*.deb dist
(cd dist && rm -f SHA256SUMS && sha256sum -- * >SHA256SUMS)
echo "release $version: done"
ls -l dist
