#!/bin/sh
# deb.sh STAGE VERSION PYTHON - make build/aiod_VERSION_ARCH.deb of what `make install` has put into STAGE; prints its name.
#
# scripts/deb/ has the package's scripts and the template of its description.
set -eu

stage=$1 version=$2 python=$3
here=$(dirname "$0")
arch=$(dpkg --print-architecture)
package=build/aiod_${version}_$arch.deb

next() { "$python" -c 'import sys; print("3.%d" % (sys.version_info[1] + 1))'; }
this() { "$python" -c 'import sys; print("3.%d" % sys.version_info[1])'; }
libc() { dpkg-query --show --showformat='${Version}' libc6 | sed 's/-.*//'; }

find "$stage/usr/share/man" -type f -name '*.[1-8]' -exec gzip -9n {} +
chmod -R u+rwX,go+rX,go-w "$stage"
install -d "$stage/DEBIAN"
install -m 755 "$here/deb/postinst" "$here/deb/prerm" "$here/deb/postrm" "$stage/DEBIAN"
echo /etc/aiod/aiod.toml >"$stage/DEBIAN/conffiles"
size=$(du -sk --exclude=DEBIAN "$stage" | cut -f1)
sed "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/; s/@PYTHON@/$(this)/; s/@NEXT_PYTHON@/$(next)/; s/@LIBC@/$(libc)/" \
    "$here/deb/control" >"$stage/DEBIAN/control"
dpkg-deb --root-owner-group -Zxz -z1 --build "$stage" "$package" >/dev/null
echo "$package"
