#!/bin/sh
# install-venv.sh DESTDIR LIB EXTRAS - create a virtual environment with aiod[EXTRAS] in DESTDIR/LIB that works as LIB.
#
# It uses the interpreter PYTHON (environment variable), does not contain the path DESTDIR or an installer, and
# contains its byte code, because the daemon may not write there. The build tools stay in build/install, so that a
# rebuild takes seconds.
set -eu

destdir=${1:+$(realpath --canonicalize-missing --no-symlinks "$1")} lib=$2 extras=$3
destdir=${destdir%/} # "" for "/"
unset DESTDIR # make exports it, and CMake would use it
python=$(command -v "${PYTHON:-python3}")
venv=$destdir$lib
tools=build/install/tools
wheels=build/install/wheels

pip() { "$tools/bin/python" -m pip --disable-pip-version-check "$@"; }

# ---- the wheel, built in an environment with the build requirements and the installer

made_by="$python $("$python" -VV)"
if [ "$(cat "$tools/.made-by" 2>/dev/null)" != "$made_by" ]; then
    rm -rf build/install
    "$python" -m venv --symlinks "$tools"
    echo "$made_by" >"$tools/.made-by"
fi
"$tools/bin/python" -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))
print(*p["project"]["optional-dependencies"]["build"], sep="\n")' |
    pip install --quiet --requirement /dev/stdin
rm -rf "$wheels"
PATH=$PWD/$tools/bin:$PATH pip wheel --quiet --no-build-isolation --no-deps --wheel-dir "$wheels" \
    --config-settings=build-dir=build/install/cmake .

# ---- the environment

"$python" -m venv --clear --symlinks --without-pip "$venv"
pip --python "$venv/bin/python" install --quiet --no-compile "$(echo "$wheels"/aiod_io-*.whl)[$extras]"
site=$(echo "$venv"/lib/python3.*/site-packages)

# ---- remove the path of the staging directory

sed -i '/^command = /d' "$venv/pyvenv.cfg"
find "$venv/bin" -type f ! -name aiod ! -name aiodctl -delete # activate, and commands of other packages
rm -f "$site"/aiod_io-*.dist-info/direct_url.json # the wheel's path
sed -i '/direct_url\.json/d' "$site"/aiod_io-*.dist-info/RECORD
grep -rlI "^#!" "$venv/bin" | xargs sed -i "1,2s|$venv/|$lib/|"
"$venv/bin/python" -m compileall -q -j 0 ${destdir:+-s "$destdir" -p /} "$site"
