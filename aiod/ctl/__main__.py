"""The program aiodctl.

Imports take longer than the work, and an interrupt during them would print a traceback; so the default action of
SIGINT, which ends the process, stays until they are done.
"""

from __future__ import annotations

import signal
import sys

from aiod.util.lasting_imports import lasting_imports


def main() -> None:
    """Run the command line; does not return."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        with lasting_imports():
            from aiod.ctl.verbs import main as verbs  # noqa: PLC0415 - see above
    except ImportError as error:
        from aiod.installation import lacking  # noqa: PLC0415

        sys.exit(f"aiodctl: {lacking(error)}")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    verbs(prog_name="aiodctl")


if __name__ == "__main__":
    main()
