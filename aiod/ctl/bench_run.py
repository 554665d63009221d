"""aiodctl bench: chooses the export, and shows progress while bench.py measures."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from aiod.ctl.daemon import ask

if TYPE_CHECKING:
    from aiod.ctl.bench import Tally
    from aiod.ctl.daemon import Address

KINDS: Final = ("randread", "randwrite", "randrw", "read", "write")


def run_bench(address: Address, export: str | None, seconds: float, timeout_s: float, **work: Any) -> dict[str, Any]:
    """Run the benchmark; its results. Raises OSError when the daemon refuses, or has gone."""
    from aiod.ctl.bench import Work, measure  # noqa: PLC0415 - no other verb needs an event loop

    wanted = Work(export=export or _first_export(address, timeout_s), seconds=seconds, **work)
    if wanted.block_bytes > wanted.file_bytes:
        raise OSError(errno.EINVAL, f"--bs {wanted.block_bytes} is larger than --size {wanted.file_bytes}")
    console = Console(stderr=True, markup=False, emoji=False, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as line:
        task = line.add_task("creating the file", total=seconds)

        def report(elapsed_s: float, tally: Tally) -> None:
            line.update(task, completed=elapsed_s, description=f"{tally.operations / elapsed_s:,.0f} IOPS")

        return measure(address, wanted, timeout_s, report)


def _first_export(address: Address, timeout_s: float) -> str:
    """The first export that is not read-only."""
    exports = ask(address, "exports", timeout_s)["exports"]
    for export in exports:
        if not export["read_only"]:
            return str(export["name"])
    raise OSError(errno.EROFS, "every export is read-only: there is none to create a file in")
