#!/bin/sh
# prerequisites.sh WHAT - check that the machine has the programs that `make` needs and cannot install into .venv.
#
#   WHAT   build   a C and C++ compiler; a Python (env PYTHON) with venv and headers; systemd's headers
#          core    a C compiler
#          deb     Debian's own Python as PYTHON, and what makes a package
#          test    spin, which checks the models; mandoc; file systems to make; nbdkit, nbdfuse and qemu-nbd for disks
#                  that fail and that log; prometheus, which scrapes; systemd-nspawn
#          bench   the peers that `make bench` measures beside aiod
#
# If something is missing, root on a system with apt-get installs it; otherwise the command to run is printed, and the
# exit status is 1. Prints nothing if nothing is missing.
set -eu

PYTHON=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin # for mkfs, where a user's PATH has no sbin
missing=

need() { # PACKAGE COMMAND: PACKAGE is missing when there is no COMMAND
    command -v "$2" >/dev/null 2>&1 || missing="$missing $1"
}

python_ok() { "$PYTHON" -c "$1" >/dev/null 2>&1; }

need_python() {
    if ! command -v "$PYTHON" >/dev/null 2>&1; then
        missing="$missing python3 python3-venv python3-dev"
        return
    fi
    if ! python_ok 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "$PYTHON is $("$PYTHON" -V 2>&1): aiod needs Python 3.11 or newer. Name one: make PYTHON=/path/to/python3" >&2
        exit 1
    fi
    version=$("$PYTHON" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    python_ok 'import ensurepip, venv' || missing="$missing $version-venv"
    python_ok 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        missing="$missing $version-dev"
}

case ${1:-} in
build)
    need gcc "${CC:-cc}"; need g++ "${CXX:-c++}"; need_python
    need pkg-config pkg-config
    pkg-config --exists libsystemd 2>/dev/null || missing="$missing libsystemd-dev" # for systemd-python
    ;;
core) need gcc "${CC:-cc}" ;;
deb)
    found=$(command -v "$PYTHON" || echo "$PYTHON")
    case $found in
    /usr/bin/*) ;;
    *)
        echo "PYTHON is $found: a package needs the Python that Debian installs: make deb PYTHON=/usr/bin/python3" >&2
        exit 1
        ;;
    esac
    need_python
    need dpkg dpkg-deb; need gzip gzip; need binutils strip
    ;;
test)
    need spin spin; need mandoc mandoc
    need e2fsprogs mkfs.ext4; need xfsprogs mkfs.xfs; need btrfs-progs mkfs.btrfs
    need prometheus prometheus
    need nbdkit nbdkit; need libnbd-bin nbdfuse; need qemu-utils qemu-nbd
    # Only root can boot a systemd beside the machine's own.
    [ "$(id -u)" != 0 ] || { need systemd-container systemd-nspawn; need systemd systemd-sysusers; }
    ;;
bench)
    need fio fio; need nbdkit nbdkit; need qemu-utils qemu-nbd; need libnbd-bin nbdfuse; need nbd-server nbd-server
    /usr/bin/python3 -c 'import nbd' >/dev/null 2>&1 || missing="$missing python3-libnbd" # of the system's Python only
    ;;
*) echo "usage: $0 build|core|deb|test|bench" >&2; exit 2 ;;
esac

[ -n "$missing" ] || exit 0
case $missing in *gcc* | *g++*) missing="$missing libc6-dev" ;; esac

if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing (by Debian's package names):$missing. Install them, then run make again." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "Missing packages. Run this, then make again:" >&2
    echo "    sudo apt-get install --yes$missing" >&2
    exit 1
fi
echo "installing by apt-get:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 # the words of $missing are package names
apt-get -qq install --yes --no-install-recommends $missing >/dev/null
