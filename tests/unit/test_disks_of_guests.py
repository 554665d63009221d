"""Disks of guests in the supervisor: sections of their engines, reloads, and the view while an engine is away."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

import pytest

from aiod.config import Config, ConfigError, make_config
from aiod.ctl.tables import vhost
from aiod.supervisor.added_disks import AddedDisks, warn_of_engines, with_disk, without_disk
from aiod.supervisor.control_verbs import ChangeableService, ControlVerbs
from aiod.supervisor.engine import Engine
from aiod.supervisor.reload import plan
from aiod.supervisor.snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import Callable

DISK = {"vm": {"export": "a", "path": "vm.img"}}
EXPORT = {"a": {"path": "/a"}}
ENGINE = {"vhost-vm": {"max_threads": 3}}


def config(**sections: Any) -> Config:
    return make_config({"runtime_dir": "/run/x", "exports": EXPORT} | sections, "file")


def changes(running: Config, wanted: Config) -> list[str]:
    return [str(change) for change in plan(running, wanted, "file").changed]


def test_a_section_without_its_disk_makes_no_engine(caplog: pytest.LogCaptureFixture) -> None:
    alone = config(engine=ENGINE)
    assert [*alone.engines] == ["main"]
    with caplog.at_level(logging.WARNING):
        warn_of_engines(alone)
    assert "[engine.vhost-vm] is not used: there is no disk vm" in caplog.text
    assert config(engine=ENGINE, vhost=DISK).engines["vhost-vm"].max_threads == 3


def test_an_export_may_have_an_engine_of_such_a_name() -> None:
    exports = EXPORT | {"b": {"path": "/b", "engine": "vhost-vm"}}
    assert config(exports=exports, engine=ENGINE).engines["vhost-vm"].max_threads == 3


def test_a_reload_may_remove_a_disk_and_leave_the_section_of_its_engine() -> None:
    both, alone = config(engine=ENGINE, vhost=DISK), config(engine=ENGINE)
    assert changes(both, alone) == ["vhost.vm: removed"]
    result = plan(both, alone, "file").config
    assert [*result.engines] == ["main"]
    assert with_disk(result, "vm", DISK["vm"]).engines["vhost-vm"].max_threads == 3


def test_a_section_that_waits_for_its_disk_is_changed_without_a_restart() -> None:
    running, wanted = config(engine={"vhost-vm": {"cpus": "0"}}), config(engine={"vhost-vm": {"cpus": "1"}}, vhost=DISK)
    result = plan(running, wanted, "file")
    assert result.restart == []
    assert result.config.engines["vhost-vm"].cpus == "1"


@pytest.mark.parametrize("turn", [lambda *pair: pair, lambda *pair: reversed(pair)], ids=["to exports", "to a disk"])
def test_an_engine_cannot_turn_from_a_disk_to_exports_in_one_reload(turn: Callable[..., Any]) -> None:
    exports = EXPORT | {"b": {"path": "/b", "engine": "vhost-vm"}}
    running, wanted = turn(config(vhost=DISK), config(exports=exports, engine=ENGINE))
    with pytest.raises(ConfigError, match=r"engine vhost-vm serves .* that this removes.*in two reloads"):
        plan(running, wanted, "file")


def test_a_reload_gives_an_added_disk_no_section() -> None:
    """So nothing is left of it, and shown as a change later, when the disk is removed."""
    running = with_disk(config(), "vm", DISK["vm"])
    reloaded = plan(running, running, "file").config
    assert changes(without_disk(reloaded, "vm"), config()) == []


def test_a_disk_is_shown_while_its_engine_is_away() -> None:
    both = config(vhost={"vm": DISK["vm"] | {"read_only": True}})
    engines = {name: Engine(both, name, lambda: None) for name in both.engines}
    verbs = ControlVerbs(both, engines, Snapshots(engines), cast("ChangeableService", None), AddedDisks())
    answer = asyncio.run(cast("Any", verbs.queries["vhost"]()))
    (disk,) = answer["disks"]
    assert (disk["file"], disk["socket"], disk["read_only"]) == ("a/vm.img", "/run/x/vhost-vm.sock", True)
    assert (disk["state"], disk["open"], disk["vmm_pid"]) == ("starting", False, 0)
    *_, complaint = vhost(answer)
    assert complaint == "disk vm: engine vhost-vm is starting; try again later; a guest that has the disk waits"
