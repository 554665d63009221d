#!/bin/sh
# install-venv.sh DESTDIR LIB EXTRAS - create a virtual environment with aiod[EXTRAS] in DESTDIR/LIB that works as LIB.
#
# It uses the interpreter PYTHON (environment variable), does not contain the path DESTDIR or an installer, and
# contains its byte code, because the daemon may not write there.
set -eu

destdir=${1:+$(realpath --canonicalize-missing --no-symlinks "$1")} lib=$2 extras=$3
destdir=${destdir%/} # "" for "/"
python=$(command -v "${PYTHON:-python3}")
venv=$destdir$lib
build=build/install

pip() { "$build/tools/bin/python" -m pip --disable-pip-version-check "$@"; }

"$(dirname "$0")/build-wheel.sh" "$build"

# ---- the environment

"$python" -m venv --clear --symlinks --without-pip "$venv"
pip --python "$venv/bin/python" install --quiet --no-compile "$(echo "$build/wheels"/aiod_io-*.whl)[$extras]"
site=$(echo "$venv"/lib/python3.*/site-packages)

# ---- remove the path of the staging directory

sed -i '/^command = /d' "$venv/pyvenv.cfg"
find "$venv/bin" -type f ! -name aiod ! -name aiodctl -delete # activate, and commands of other packages
rm -f "$site"/aiod_io-*.dist-info/direct_url.json # the wheel's path
sed -i '/direct_url\.json/d' "$site"/aiod_io-*.dist-info/RECORD
grep -rlI "^#!" "$venv/bin" | xargs sed -i "1,2s|$venv/|$lib/|"
"$venv/bin/python" -m compileall -q -j 0 ${destdir:+-s "$destdir" -p /} "$site"
