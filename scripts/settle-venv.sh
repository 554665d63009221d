#!/bin/sh
# settle-venv.sh DESTDIR PATH - make the virtual environment that was installed at DESTDIR/PATH ready to live at PATH.
#
# Nothing in it names DESTDIR afterwards; it has no installer, and its byte code is made (the daemon cannot write there).
set -eu

destdir=$1 path=$2
venv=$destdir$path
site=$(echo "$venv"/lib/python3*/site-packages)

"$venv/bin/python" -m pip --disable-pip-version-check uninstall --quiet --yes setuptools >/dev/null 2>&1 || true
"$venv/bin/python" -m pip --disable-pip-version-check uninstall --quiet --yes pip
rm -f "$venv"/bin/activate* "$venv"/bin/Activate.ps1
rm -f "$site"/aiod_io-*.dist-info/direct_url.json # where the source was
sed -i '/direct_url\.json/d' "$site"/aiod_io-*.dist-info/RECORD
sed -i '/^command = /d' "$venv/pyvenv.cfg"
grep -rlI "^#!$venv/bin/" "$venv/bin" | xargs -r sed -i "1s|^#!$destdir|#!|"
"$venv/bin/python" -m compileall -q -f --invalidation-mode unchecked-hash ${destdir:+-s "$destdir"} "$site"
