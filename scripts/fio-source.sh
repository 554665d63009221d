#!/bin/sh
# fio-source.sh DIRECTORY - put the configured sources of the installed fio into DIRECTORY, for clients/fio/engine.c.
#
# The interface of engines is that of fio's own headers, which no package installs, and another one in each version. So
# the sources come from the archive that this machine's fio came from (apt-get source, without a change of the machine's
# sources.list). env FIO_SOURCE names a directory that has them already. Does nothing if DIRECTORY is complete.
set -eu

target=$1
fail() { echo "fio-source.sh: $*" >&2; exit 1; }

command -v fio >/dev/null 2>&1 || fail "fio is not installed: apt-get install fio"
version=$(fio --version)

if [ -f "$target/config-host.h" ] && [ "$(cat "$target/.version")" = "$version" ]; then
    exit 0
fi
rm -rf "$target"
mkdir -p "$target"

if [ -n "${FIO_SOURCE:-}" ]; then
    cp -a "$FIO_SOURCE/." "$target"
else
    command -v apt-get >/dev/null 2>&1 || fail "no apt-get: name the sources of $version, make fio-engine FIO_SOURCE=..."
    package=$(dpkg-query --show --showformat '${source:Version}' fio) || fail "no package fio: name its sources, FIO_SOURCE=..."
    apt=$(cd "$target" && pwd)/.apt
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ ! -f "$keys" ] || keyring="[signed-by=$keys] "
    apt-get indextargets --format "deb-src ${keyring:-}"'$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Component: main' 'Origin: Debian' | sort -u >"$apt/sources.list"
    set -- -qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists" \
        -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User="$(id -un)"
    apt-get "$@" update && (cd "$apt" && apt-get "$@" source --download-only "fio=$package") ||
        fail "the archive has no sources of fio $package: name them, make fio-engine FIO_SOURCE=..."
    rm -f "$apt"/fio_*.asc
    tar -xf "$apt"/fio_*.orig.tar.* -C "$target" --strip-components=1
    rm -rf "$apt"
fi

grep -q "^DEF_VER=$version\$" "$target/FIO-VERSION-GEN" || fail "these are not the sources of the installed $version"
(cd "$target" && ./configure >configure.log 2>&1) || fail "fio's configure fails: $target/configure.log"
echo "$version" >"$target/.version"
