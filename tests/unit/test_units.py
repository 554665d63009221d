"""The template unit equals the service unit, except for directories."""

from __future__ import annotations

from pathlib import Path

SYSTEMD = Path(__file__).parents[2] / "systemd"


def directives(unit: str) -> list[str]:
    """The lines of a unit without comments."""
    return [line for line in (SYSTEMD / unit).read_text().splitlines() if not line.startswith("#")]


def test_template_unit_differs_from_the_service_unit_only_in_its_directories() -> None:
    of_instance = {
        "Description=Asynchronous I/O daemon": "Description=Asynchronous I/O daemon, instance %i",
        "ExecStart=/usr/bin/aiod --config ${CONFIGURATION_DIRECTORY}/aiod.toml": (
            "ExecStart=/usr/bin/aiod --config ${CONFIGURATION_DIRECTORY}/%i.toml"
        ),
        "StateDirectory=aiod": "StateDirectory=aiod/%i",
        "RuntimeDirectory=aiod": "RuntimeDirectory=aiod-%i",
    }
    assert directives("aiod@.service") == [of_instance.get(line, line) for line in directives("aiod.service")]
