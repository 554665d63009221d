"""aiod: argv to config to supervisor; exit codes, nothing else.

Imports little at its top: multiprocessing imports this module again in every engine process, which is to stay small.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the daemon in the foreground."""
    from aiod.command import command  # noqa: PLC0415 - see above

    sys.exit(command.main(prog_name="aiod"))


if __name__ == "__main__":
    main()
