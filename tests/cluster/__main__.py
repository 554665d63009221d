"""The entry of make soak-cluster."""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from pathlib import Path

import click

from tests.cluster import gluster, hosts
from tests.cluster.soak import MUST_BE_EMPTY, Soak, cluster_in


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seconds", default=300.0, show_default=True, help="How long, at least.")
@click.option("--seed", type=int, help="Of the schedule: the same one does the same, if not at the same time.")
@click.option("--directory", default="/var/tmp", show_default=True, help="Where the files are made.")
@click.option("--failover/--no-failover", default=True, show_default=True, help="Clients may use both aiod hosts.")
def main(seconds: float, seed: int | None, directory: str, *, failover: bool) -> None:
    """Verify the clients' data while hosts are killed, cut off and frozen; exit with 1 on an error."""
    if os.getuid() != 0:
        raise click.ClickException("network and mount namespaces need root")
    if lacking := hosts.missing() + gluster.missing():
        raise click.ClickException(f"missing: {', '.join(lacking)} (scripts/prerequisites.sh test)")
    seed = secrets.randbelow(1 << 30) if seed is None else seed
    click.echo(f"seed {seed}", err=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix="aiod-cluster-") as base, cluster_in(Path(base)) as cluster:
        report = Soak(cluster, seed, failover=failover).run(seconds, lambda event: click.echo(event, err=True))
    click.echo(json.dumps(report, indent=2))
    sys.exit(1 if any(report[what] for what in MUST_BE_EMPTY) else 0)


if __name__ == "__main__":
    main()
