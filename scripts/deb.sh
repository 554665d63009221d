#!/bin/sh
# deb.sh STAGE PYTHON - build build/aiod_VERSION_ARCH.deb from the files that `make install` has put into STAGE; print
# its name.
#
# PYTHON is the interpreter that STAGE was built with. scripts/deb/ has the package's scripts and the template of its
# description.
set -eu

stage=$1 python=$2
here=$(dirname "$0")
arch=$(dpkg --print-architecture)
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' aiod/__init__.py)
package=build/aiod_${version}_$arch.deb
doc=$stage/usr/share/doc/aiod

version_of() { dpkg-query --show --showformat='${Version}' "$1" | sed 's/^[0-9]*://; s/-[^-]*$//'; }

# An environment's native modules are bound to the minor version of its Python.
minor=$("$python" -c 'import sys; print(sys.version_info.minor)')

if grep -rlF "$stage" "$stage" >&2; then
    echo "deb.sh: these files contain the path $stage, which will not exist on the target" >&2
    exit 1
fi
install -m 644 -D "$here/deb/copyright" "$doc/copyright"
install -m 644 -D "$here/deb/lintian-overrides" "$stage/usr/share/lintian/overrides/aiod"
install -m 644 -D -t "$doc/docs" docs/*.md docs/*.png
install -m 644 README.md CHANGELOG.md "$doc"
printf 'aiod (%s) unstable; urgency=medium\n\n  * CHANGELOG.md, beside this file, has the changes.\n\n -- %s  %s\n' \
    "$version" "$(sed -n 's/^Maintainer: //p' "$here/deb/control")" "$(LC_ALL=C date -R)" | gzip -9n >"$doc/changelog.gz"
find "$stage/usr/share/man" -type f ! -name '*.gz' -exec gzip -9n {} +
strip "$stage/usr/bin/aiod-bench"
strip --strip-debug "$stage/usr/lib/libaiod.a"
rm -f "$stage"/usr/lib/libaiod.so* # Debian wants a package of its own for a shared library
chmod -R u+rwX,go+rX,go-w "$stage"

rm -rf "$stage/DEBIAN"
install -d "$stage/DEBIAN"
install -m 755 "$here/deb/postinst" "$here/deb/prerm" "$here/deb/postrm" "$stage/DEBIAN"
echo /etc/aiod/aiod.toml >"$stage/DEBIAN/conffiles"
sed "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@PYTHON@/3.$minor/; s/@NEXT_PYTHON@/3.$((minor + 1))/
    s/@LIBC@/$(version_of libc6)/; s/@LIBSTDCXX@/$(version_of libstdc++6 | cut -d. -f1)/
    s/@SIZE@/$(du -sk --apparent-size --exclude=DEBIAN "$stage" | cut -f1)/" "$here/deb/control" >"$stage/DEBIAN/control"
(cd "$stage" && find etc usr -type f ! -path etc/aiod/aiod.toml -exec md5sum {} +) >"$stage/DEBIAN/md5sums"
dpkg-deb --root-owner-group -Zxz -z1 --build "$stage" "$package" >/dev/null
echo "$package"
