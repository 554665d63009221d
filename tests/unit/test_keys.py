"""CURVE keys: aiodctl keygen, and the use of key files by client and configuration."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aiod.config import ConfigError, make_config
from aiod.ctl.verbs import main
from aiod_client import AiodError
from aiod_client.keys import find_keys
from aiod_protocol.key_files import load_public

ENDPOINT = "tcp://host:5570"


def keygen(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["keygen", *arguments])


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """File of the secret key; that of the public key is beside it."""
    assert keygen("mine", "--directory", str(tmp_path)).exit_code == 0
    return tmp_path / "mine.key_secret"


def test_only_the_owner_may_read_the_secret_key_file(pair: Path) -> None:
    assert stat.S_IMODE(pair.stat().st_mode) == 0o600
    assert stat.S_IMODE(pair.with_suffix(".key").stat().st_mode) == 0o644


def test_keygen_does_not_overwrite_files(pair: Path) -> None:
    before = pair.read_bytes()
    again = keygen("mine", "--directory", str(pair.parent))
    assert again.exit_code == 1
    assert "exists already" in again.output
    assert pair.read_bytes() == before


def test_keygen_prints_the_public_key_and_both_files(tmp_path: Path) -> None:
    said = json.loads(keygen("mine", "--directory", str(tmp_path), "--json").stdout)
    assert load_public(said["public"]).decode() == said["public_key"]
    assert said["public_key"] in Path(said["secret"]).read_text()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "x" * 65])
def test_keygen_refuses_invalid_names(tmp_path: Path, name: str) -> None:
    assert keygen(name, "--directory", str(tmp_path)).exit_code == 2


def test_a_client_finds_its_keys_in_arguments_or_environment(pair: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = pair.with_suffix(".key")
    found = find_keys(ENDPOINT, pair, public)
    assert found is not None
    assert found == find_keys(ENDPOINT, str(pair), load_public(public).decode())
    assert found.server == found.public
    assert found.secret.decode() not in repr(found)
    assert find_keys(ENDPOINT, None, None) is None
    monkeypatch.setenv("AIOD_KEY", str(pair))
    monkeypatch.setenv("AIOD_SERVER_KEY", str(public))
    assert find_keys(ENDPOINT, None, None) == found
    assert find_keys("ipc:///run/aiod/aiod.sock", None, None) is None


def test_a_client_refuses_missing_or_wrong_key_files(pair: Path, tmp_path: Path) -> None:
    public = pair.with_suffix(".key")
    with pytest.raises(AiodError, match=r"server_key .* is missing"):
        find_keys(ENDPOINT, pair, None)
    with pytest.raises(AiodError, match="no secret key"):
        find_keys(ENDPOINT, public, public)
    with pytest.raises(FileNotFoundError):
        find_keys(ENDPOINT, tmp_path / "none", public)
    (tmp_path / "text").write_text("text")
    with pytest.raises(AiodError, match="is not a key file"):
        find_keys(ENDPOINT, pair, tmp_path / "text")
    with pytest.raises(AiodError, match="keys are for tcp"):
        find_keys("ipc:///run/aiod/aiod.sock", pair, public)


def config(pair: Path, **sections: Any) -> Any:
    least = {"runtime_dir": "/run/aiod", "exports": {"scratch": {"path": "/srv/scratch"}}}
    return make_config(least | {"tcp": {"listen": "*:5570", "secret_key": str(pair)}} | sections, "FILE")


def test_the_secret_key_of_the_configuration_reaches_the_engine_settings(pair: Path) -> None:
    made = config(pair).engine_settings("main", 1).tcp
    assert made.secret_key in pair.read_text()
    assert made.secret_key not in repr(made)
    assert config(pair).tcp.secret_key == str(pair)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"tcp": {"listen": "*:5570"}}, "insecure_tcp = true"),
        ({"tcp": {"listen": "*"}}, "HOST:PORT"),
        ({"tcp": {"listen": "host:99999", "insecure_tcp": True}}, "at most 65535"),
        ({"tcp": {"listen": "*:1", "secret_key": "/none/there"}}, "cannot be read"),
        ({"tcp": {"listen": "*:1", "secret_key": "relative"}}, "not an absolute path"),
        ({"keys": {"a": {"public_key": "short"}}}, "not a public key"),
        ({"keys": {"a": {"public_key": "x" * 40, "user": "no-such-user"}}}, "no user"),
        ({"keys": {"a": {"public_key": "x" * 40}, "b": {"public_key": "x" * 40}}}, "the same public_key"),
        ({"exports": {"e": {"path": "/srv", "keys": ["b"]}}}, "there is no key 'b'"),
    ],
)
def test_configuration_errors_of_tcp_and_keys_name_the_problem(pair: Path, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(pair, **sections)


def test_a_secret_key_file_that_everyone_may_read_is_refused(pair: Path) -> None:
    pair.chmod(0o644)
    with pytest.raises(ConfigError, match="everyone may read"):
        config(pair)
    with pytest.raises(ConfigError, match="exclude each other"):
        config(pair, tcp={"listen": "*:1", "secret_key": str(pair), "insecure_tcp": True})
