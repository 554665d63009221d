#!/bin/sh
# deb.sh - build the Debian packages (debian/) of this tree, for the release of Debian that this is, into build/packages;
# print their names.
#
# It builds in a copy, without the files that git ignores, so that the tree stays clean. The tools that build the wheel
# stay in build/packages.tools.
set -eu

packages=$PWD/build/packages
work=$PWD/build/packages.work
AIOD_TOOLS=$PWD/build/packages.tools
DEB_BUILD_OPTIONS="noautodbgsym ${DEB_BUILD_OPTIONS:-}"
export AIOD_TOOLS DEB_BUILD_OPTIONS
unset CC DESTDIR PREFIX SYSCONFDIR LIBDIR MAKEFLAGS MAKELEVEL MFLAGS # of the make that calls this

rm -rf "$packages" "$work"
mkdir -p "$packages" "$work/aiod"
if [ -e .git ]; then
    git ls-files -z --cached --others --exclude-standard
else # an sdist
    find . -path ./build -prune -o -path ./.venv -prune -o -path ./dist -prune -o -type f -print0
fi | tar --create --null --files-from=- --ignore-failed-read 2>/dev/null | tar --extract --directory="$work/aiod"

umask 022
(cd "$work/aiod" && dpkg-buildpackage --build=binary --unsigned-changes --unsigned-source --no-pre-clean) \
    >"$work/log" 2>&1 || { tail -n 40 "$work/log" >&2; echo "deb.sh: the log is $work/log" >&2; exit 1; }
mv "$work"/*.deb "$work"/*.changes "$work"/*.buildinfo "$packages"
rm -rf "$work/aiod"
ls build/packages/*.deb
