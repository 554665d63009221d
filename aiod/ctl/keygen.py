"""aiodctl keygen: a pair of CURVE keys, for the daemon or for a client of another host."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Final

import click

from aiod.ctl.output import write
from aiod.ctl.program import Failure

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


@click.command()
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Directory of the files; by default the current one.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def keygen(name: str, directory: Path, *, as_json: bool) -> None:
    """Make a pair of keys: NAME.key, the public one, and NAME.key_secret, which only its owner may read.

    The daemon's secret key is named by secret_key in the [tcp] section of aiod.toml; clients get its public key. A
    client's public key goes into a [keys.NAME] section. Existing files are not overwritten.
    """
    from zmq.auth import create_certificates, load_certificate  # noqa: PLC0415 - no other verb needs it

    if not _NAME.fullmatch(name):
        raise click.UsageError(f"{name!r} is not a name: letters, digits, '.', '_' and '-', at most 64")
    for path in (directory / f"{name}.key", directory / f"{name}.key_secret"):
        if path.exists():
            raise Failure(f"{path} exists already: remove it, or choose another name", number=errno.EEXIST)
    umask = os.umask(0o077)
    try:
        public, secret = (Path(path) for path in create_certificates(directory, name))
        public.chmod(0o644)
    except OSError as error:
        raise Failure(f"{error.filename or directory}: {error.strerror}", number=error.errno) from error
    finally:
        os.umask(umask)
    public_key = load_certificate(public)[0].decode()
    if as_json:
        write(json.dumps({"public": str(public), "secret": str(secret), "public_key": public_key}, indent=2) + "\n")
        return
    write(f"public: {public}\nsecret: {secret}\n\n[keys.{name}]\npublic_key = {json.dumps(public_key)}\n")
