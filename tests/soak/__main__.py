"""The entry of make soak."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

import click

from tests.soak.failing_disk import NEEDS, failing_disk
from tests.soak.several import SeveralSoak
from tests.soak.soak import DISK_BYTES, MUST_BE_EMPTY, Soak


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=300.0, show_default=True, help="How long.")
@click.option("--clients", default=8, show_default=True, help="How many, over both wires and two engines.")
@click.option("--seed", type=int, help="Of the schedule: the same one does the same, if not at the same time.")
@click.option("--daemons", default=1, show_default=True, help="More than one: they are killed, frozen and stopped.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the files are made.")
def main(seconds: float, clients: int, seed: int | None, daemons: int, directory: str) -> None:
    """Verify the clients' data while engines, the daemon and clients are killed; exit with 1 on an error.

    AIOD_TESTS_EXPORTS gives keys of all exports: '{"direct": true, "io": "uring"}'.
    """
    seed = secrets.randbelow(1 << 30) if seed is None else seed
    click.echo(f"seed {seed}", err=True)
    with contextlib.ExitStack() as stack:
        below, above = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(dir=directory))) for _ in ("below", "above")
        )
        failing = None
        if daemons > 1:
            pass
        elif os.getuid() == 0 and all(map(shutil.which, NEEDS)):
            failing = stack.enter_context(failing_disk(below, DISK_BYTES))
        else:
            click.echo(f"without a disk that fails: that needs root, and {' and '.join(NEEDS)}", err=True)
        soak = SeveralSoak(above, seed, clients, daemons) if daemons > 1 else Soak(above, seed, clients, failing)
        report = soak.run(seconds, lambda event: click.echo(event, err=True))
    click.echo(json.dumps({"seed": seed} | report, indent=2))
    sys.exit(1 if any(report[what] for what in MUST_BE_EMPTY) else 0)


if __name__ == "__main__":
    main()
