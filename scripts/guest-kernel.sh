#!/bin/sh
# guest-kernel.sh DIRECTORY - put a kernel for guests into DIRECTORY: vmlinuz, and the modules of a virtio disk
# (NAME.ko).
#
# The kernel is Debian's linux-image-cloud of this machine's release. Its package is unpacked, not installed: root is not
# needed, and the machine's own /boot stays as it is. Does nothing if DIRECTORY is complete.
set -eu

target=$1
modules="virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk"
fail() { echo "guest-kernel.sh: $*" >&2; exit 1; }

[ ! -f "$target/vmlinuz" ] || exit 0
command -v apt-get >/dev/null 2>&1 || fail "no apt-get: put vmlinuz and the modules there yourself"
architecture=$(dpkg --print-architecture)
package=$(apt-cache depends "linux-image-cloud-$architecture" 2>/dev/null | sed -n 's/^ *Depends: //p' | head -n 1)
[ -n "$package" ] || fail "no package linux-image-cloud-$architecture in the lists: apt-get update"

mkdir -p "$target"
work=$(mktemp -d "$target/.XXXXXX")
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package") || fail "cannot download $package"
dpkg-deb --fsys-tarfile "$work"/*.deb | tar -x -C "$work" --wildcards './boot/vmlinuz-*' '*/virtio*.ko'
for module in $modules; do
    find "$work" -name "$module.ko" -exec mv {} "$target" \; # a kernel may have it built in
done
mv "$work"/boot/vmlinuz-* "$target/vmlinuz"
