"""The entry of the command aiod. Without the packages that the daemon needs, it says which extra has these.

Imports little at its top: multiprocessing imports this module again in every engine process, which has to stay small.
"""

from __future__ import annotations

import sys

from aiod.util.lasting_imports import lasting_imports


def main() -> None:
    """Run the daemon in the foreground."""
    try:
        with lasting_imports():
            from aiod.command import command  # noqa: PLC0415 - see above

        sys.exit(command.main(prog_name="aiod"))
    except ImportError as error:
        from aiod.installation import lacking  # noqa: PLC0415

        sys.exit(f"aiod: {lacking(error)}")


if __name__ == "__main__":
    main()
