#!/bin/sh
# prerequisites.sh WHAT - check that the machine has the programs that `make` needs and cannot install into .venv.
#
#   WHAT   build   a C and C++ compiler; a Python (env PYTHON) with venv and headers; systemd's and liburing's
#                  headers, and <sys/sdt.h>
#          core    a C compiler; liburing's headers
#          nbdkit  a C compiler; nbdkit's headers
#          deb     what makes the packages, for Debian's own Python: the Build-Depends of debian/control
#          test    spin, which checks the models; mandoc; file systems to make; nbdkit, nbdfuse and qemu-nbd for disks
#                  that fail and that log; QEMU for a guest; fio, and nbdkit's headers; prometheus, which scrapes;
#                  systemd-nspawn; glusterd
#          bench   the peers that `make bench` measures beside aiod
#
# If something is missing, root on a system with apt-get installs it. Otherwise the exit status is 1, and the command is
# printed that installs what is missing for every target, the peers of `make bench` excepted: one call of sudo is
# enough. Prints nothing if nothing is missing.
set -eu

PYTHON=${PYTHON:-python3}
DEB_PYTHON=/usr/bin/python3
PATH=$PATH:/usr/sbin:/sbin # for mkfs, where a user's PATH has no sbin
missing=

add() { # PACKAGE...: they are missing
    for package in "$@"; do
        case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
    done
}

need() { # PACKAGE COMMAND: PACKAGE is missing when there is no COMMAND
    command -v "$2" >/dev/null 2>&1 || add "$1"
}

need_liburing() {
    echo '#include <liburing.h>' | "${CC:-cc}" -E - >/dev/null 2>&1 || add liburing-dev
}

need_compiler() { # COMMAND PACKAGE: the compiler; a named one (CC=clang) is in the package of its name
    command -v "$1" >/dev/null 2>&1 && return
    case ${1##*/} in
    cc | c++) add "$2" libc6-dev ;;
    clang*) add "$(basename "$1" | sed 's/++//')" libc6-dev ;;
    *) add "$(basename "$1")" libc6-dev ;;
    esac
}

build_dependencies() { # the packages that debian/control names
    sed -n '/^Build-Depends:/,/^[^ B]/ {s/^Build-Depends://; /^[A-Z]/d; s/([^)]*)//g; s/,//g; s/-compat//; p}' debian/control
}

python_ok() { "$1" -c "$2" >/dev/null 2>&1; }

need_python() { # PYTHON
    if ! command -v "$1" >/dev/null 2>&1; then
        add python3 python3-venv python3-dev
        return
    fi
    if ! python_ok "$1" 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "$1 is $("$1" -V 2>&1): aiod needs Python 3.11 or newer. Name one: make PYTHON=/path/to/python3" >&2
        exit 1
    fi
    version=$("$1" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    python_ok "$1" 'import ensurepip, venv' || add "$version-venv"
    python_ok "$1" 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
        add "$version-dev"
}

check() { # WHAT: add the packages that are missing for it
    case $1 in
    build)
        need_compiler "${CC:-cc}" gcc; need_compiler "${CXX:-c++}" g++; need_python "$PYTHON"
        need pkg-config pkg-config; need_liburing
        # For the probes of docs/tracing.md; without the header the core is built without them.
        echo '#include <sys/sdt.h>' | ${CC:-cc} -E - >/dev/null 2>&1 || add systemtap-sdt-dev
        pkg-config --exists libsystemd 2>/dev/null || add libsystemd-dev # for systemd-python
        ;;
    core) need_compiler "${CC:-cc}" gcc; need_liburing ;;
    nbdkit)
        need_compiler "${CC:-cc}" gcc; need pkg-config pkg-config
        pkg-config --exists nbdkit 2>/dev/null || add nbdkit-plugin-dev
        ;;
    deb)
        need build-essential g++; need dpkg-dev dpkg-buildpackage
        for package in $(build_dependencies); do
            [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || add "$package"
        done
        ;;
    test)
        need spin spin; need mandoc mandoc
        need e2fsprogs mkfs.ext4; need xfsprogs mkfs.xfs; need btrfs-progs mkfs.btrfs
        need prometheus prometheus
        need nbdkit nbdkit; need libnbd-bin nbdfuse; need qemu-utils qemu-nbd; need fio fio
        check nbdkit
        [ "$(uname -m)" != x86_64 ] || need qemu-system-x86 qemu-system-x86_64 # an emulated guest
        # Only root can boot a systemd beside the machine's own.
        [ "$(id -u)" != 0 ] || { need systemd-container systemd-nspawn; need systemd systemd-sysusers; }
        # Nor can others make hosts of namespaces.
        [ "$(id -u)" != 0 ] || { need glusterfs-server glusterd; need iproute2 ip; }
        ;;
    bench)
        need fio fio; need nbdkit nbdkit; need qemu-utils qemu-nbd; need libnbd-bin nbdfuse; need nbd-server nbd-server
        need qemu-system-common qemu-storage-daemon
        "$DEB_PYTHON" -c 'import nbd' >/dev/null 2>&1 || add python3-libnbd # of the system's Python only
        ;;
    *) echo "usage: $0 build|core|nbdkit|deb|test|bench" >&2; exit 2 ;;
    esac
}

what=${1:-}
check "$what"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    check build; check test
    echo "Missing (by Debian's package names):$missing. Install them, then run make again." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    for each in build core nbdkit deb test; do check "$each"; done
    echo "Missing packages. This installs them for all targets of make; then run make again:" >&2
    echo "    sudo apt-get install --yes$missing" >&2
    exit 1
fi
echo "installing by apt-get:$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 # the words of $missing are package names
apt-get -qq install --yes --no-install-recommends $missing >/dev/null
