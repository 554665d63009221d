#!/bin/sh
# deb-check.sh RELEASE... - check the Debian packages of this tree: in a new system of each RELEASE (by debootstrap) build
# them, run lintian, install them, run debian/tests by autopkgtest, upgrade, and purge them.
#
# Needs root. The systems are in build/deb-check and stay, so that the next run takes less time; each check has a
# throw-away layer over them. Packages come from the mirror that apt knows (MIRROR: another one).
set -eu

work=$PWD/build/deb-check

step() { echo "deb-check: $*"; }

mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null |
        awk '/^URIs:/ {print $2; exit} /^deb / {for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) {print $i; exit}}'
}

# What a package client of this machine needs to reach its index.
copy_access() { # ROOT
    for file in /etc/resolv.conf /etc/hosts /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
        [ ! -f "$file" ] || install -D "$file" "$1$file"
    done
    for file in /etc/apt/apt.conf.d/*[Pp]roxy* /etc/apt/apt.conf; do
        [ ! -f "$file" ] || install -D "$file" "$1$file"
    done
}

new_system() { # RELEASE
    [ ! -e "$work/$1/.complete" ] || return 0
    step "$1: a new system"
    rm -rf "${work:?}/$1"
    debootstrap --variant=minbase --include=ca-certificates,make,git,python3,systemd "$1" "$work/$1" "${MIRROR:-$(mirror)}" \
        >"$work/$1.log" 2>&1 || { tail -n 20 "$work/$1.log" >&2; exit 1; }
    copy_access "$work/$1"
    inside "$1" "$work/$1" 'apt-get -qq update && apt-get -qq --yes --no-install-recommends install \
        $(sed -n "/^Build-Depends:/,/^[^ B]/ {s/^Build-Depends://; /^[A-Z]/d; s/([^)]*)//g; s/,//g; s/-compat//; p}" \
        /src/debian/control) build-essential lintian autopkgtest' >"$work/$1.log" 2>&1 ||
        { tail -n 20 "$work/$1.log" >&2; exit 1; }
    touch "$work/$1/.complete"
}

# In namespaces of its own, so that nothing stays mounted or running.
inside() { # NAME ROOT COMMAND
    unshare --mount --pid --fork --kill-child -- sh -eu -c '
        root=$1 tree=$2 command=$3
        mount --make-rprivate /
        mkdir -p "$root/src"
        mount --bind -o ro "$tree" "$root/src"
        mount -t proc proc "$root/proc"
        mount --rbind /dev "$root/dev"
        mount -t tmpfs tmpfs "$root/tmp"
        keep=$(env | grep -iE "^(pip_|https?_proxy=|no_proxy=|ssl_cert)" || true)
        # shellcheck disable=SC2086 # several words
        exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
            DEBIAN_FRONTEND=noninteractive $keep sh -eu -c "$command"
    ' inside "$2" "$work/tree" "$3"
}

in_a_layer() { # RELEASE COMMAND
    unshare --mount -- sh -eu -c '
        layer=$1/layer
        mount --make-rprivate /
        mkdir -p "$layer"
        mount -t tmpfs tmpfs "$layer"
        mkdir "$layer/upper" "$layer/work" "$layer/root"
        mount -t overlay -o "lowerdir=$1/$2,upperdir=$layer/upper,workdir=$layer/work" overlay "$layer/root"
        exec "$3" --inside "$layer/root" "$4"
    ' in_a_layer "$work" "$1" "$0" "$2"
}

CHECK='
step() { echo "deb-check: $(sed -n "s/^VERSION_CODENAME=//p" /etc/os-release): $*"; }

step "build"
cp -r /src /root/aiod
cd /root/aiod
make --silent deb
packages=/root/aiod/build/packages

step "lintian"
lintian --allow-root --fail-on error,warning "$packages"/*.changes

step "install the version before, and upgrade"
for each in "$packages"/*.deb; do
    dpkg-deb --raw-extract "$each" /tmp/older
    sed -i "s/^Version: .*/Version: 0.0.1/; s/(= [^)]*)/(= 0.0.1)/" /tmp/older/DEBIAN/control
    dpkg-deb -Znone --build /tmp/older "/tmp/$(basename "$each")" >/dev/null
    rm -r /tmp/older
done
apt-get -qq --yes --no-install-recommends install /tmp/*.deb >/dev/null
echo "# mine" >>/etc/aiod/aiod.toml
apt-get -qq --yes install "$packages"/*.deb >/dev/null
[ "$(tail -n1 /etc/aiod/aiod.toml)" = "# mine" ]

step "autopkgtest"
autopkgtest --no-built-binaries /root/aiod "$packages"/*.deb -- null >/tmp/autopkgtest.log 2>&1 ||
    { tail -n 40 /tmp/autopkgtest.log; exit 1; }
grep -E "^[a-z]+ +PASS$" /tmp/autopkgtest.log | sort --unique

step "purge"
own=$(dpkg --listfiles aiod libaiod-dev libaiod0 nbdkit-plugin-aiod python3-aiod-client | grep aiod)
dpkg --purge aiod libaiod-dev libaiod0 nbdkit-plugin-aiod python3-aiod-client >/dev/null
for each in $own /etc/aiod /run/aiod /srv/scratch /var/lib/aiod; do
    [ ! -e "$each" ] || { echo "left: $each"; exit 1; }
done
id -un aiod
'

if [ "${1:-}" = --inside ]; then # in the mount namespace of in_a_layer()
    work=$(dirname "$(dirname "$2")")
    inside layer "$2" "$3"
    exit 0
fi
[ "$(id -u)" = 0 ] || { echo "deb-check needs root, for new systems of Debian" >&2; exit 1; }
command -v debootstrap >/dev/null || { apt-get -qq update; apt-get -qq --yes install debootstrap >/dev/null; }
rm -rf "$work/tree"
mkdir -p "$work/tree"
git ls-files -z --cached --others --exclude-standard |
    tar --create --null --files-from=- --ignore-failed-read 2>/dev/null | tar --extract --directory="$work/tree"
for release in "$@"; do
    new_system "$release"
    in_a_layer "$release" "$CHECK"
done
step "all passed: $*"
