"""The command line of `aiod`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from aiod import __version__
from aiod.config import Config, ConfigError, default_config, load_config
from aiod.util.lasting_imports import lasting_imports
from aiod.util.logs import FORMATS, parse_levels


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    envvar="AIOD_CONFIG",
    metavar="FILE",
    help="Configuration (TOML); also AIOD_CONFIG. Without one: a private daemon with one export, scratch.",
)
@click.option("--check-config", is_flag=True, help="Check the configuration, print its errors, and exit.")
@click.option(
    "--log-format",
    type=click.Choice(FORMATS),
    envvar="AIOD_LOG_FORMAT",
    metavar="FORMAT",
    help="Form of log lines on stderr: text (the default), or json; also AIOD_LOG_FORMAT.",
)
@click.version_option(__version__, prog_name="aiod")
def command(config_path: Path | None, log_format: str | None, *, check_config: bool) -> None:
    """The aiod daemon: carries out file I/O for programs that must not stall.

    Runs in the foreground and logs to stderr, or to the journal. SIGTERM and SIGINT drain and stop the daemon; a second
    signal stops it at once. SIGHUP reloads the configuration.

    Exit status: 0 stopped in order (or the configuration is valid), 1 error, 2 usage; under systemd 78 when the
    configuration is wrong.
    """
    if log_format is not None:
        os.environ["AIOD_LOG_FORMAT"] = log_format  # the engines inherit it
    try:
        parse_levels(os.environ.get("AIOD_LOG", ""))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        config = load_config(config_path) if config_path is not None else default_config()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(_refused_config(error) if not check_config else 1)
    if check_config:
        click.echo(f"{config_path or 'embedded default'}: ok, exports: {', '.join(sorted(config.exports))}")
        return
    if config_path is None:
        _make_scratch(config)
    with lasting_imports():
        from aiod.supervisor.service import serve  # noqa: PLC0415 - checking a configuration needs no event loop

    sys.exit(serve(config, config_path))


def _refused_config(error: ConfigError) -> int:
    """The exit status when the configuration is wrong; `systemctl status` shows the errors."""
    from aiod.supervisor.systemd import EXIT_CONFIG, Notifier, started_by_systemd  # noqa: PLC0415 - as above

    if not started_by_systemd():
        return 1
    Notifier().status(str(error))
    return EXIT_CONFIG


def _make_scratch(config: Config) -> None:
    """Create the directory of the embedded default's export. A configured one is never created."""
    path = Path(config.exports["scratch"].path)
    from aiod.config import scratch  # noqa: PLC0415 - only the embedded default needs it

    try:
        scratch.make(path)
    except OSError as error:
        click.echo(
            f"{path}: cannot be created: {error.strerror}; write a config file that names another export", err=True
        )
        sys.exit(1)
