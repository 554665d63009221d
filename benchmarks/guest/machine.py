"""A virtual machine: Debian's cloud kernel, and an initramfs of one static program that the kernel runs as /init.

`scripts/guest-kernel.sh build/guest` fetches the kernel.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT: Final = Path(__file__).parents[2]
KERNEL: Final = ROOT / "build" / "guest"
QEMU: Final = "qemu-system-x86_64"
MEMORY: Final = "256M"


def missing() -> str:
    """What this machine lacks for a guest, as a sentence; empty if it lacks nothing."""
    if platform.machine() != "x86_64":
        return "guests are for x86_64 only"
    if shutil.which(QEMU) is None:
        return f"no {QEMU} on this machine"
    return "" if (KERNEL / "vmlinuz").exists() else "no kernel for guests: scripts/guest-kernel.sh build/guest"


def compile_init(source: Path, program: Path) -> Path:
    """Compile a guest's program. Raises CalledProcessError if the compiler fails, or if there is no static libc."""
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-static", "-Wall", "-Wextra"]
    subprocess.run([os.environ.get("CC", "cc"), *flags, str(source), "-o", str(program)], check=True)
    return program


def _cpio_entry(name: str, mode: int, data: bytes, number: int) -> bytes:
    """One file of a cpio archive of the kind newc (the kernel's Documentation/driver-api/early-userspace)."""
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return _padded(head) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def initramfs(program: Path, modules: Sequence[Path]) -> bytes:
    """An archive with `program` as /init, the modules, and the directory /dev."""
    entries = [("dev", 0o040755, b""), ("init", 0o100755, program.read_bytes())]
    entries += [(module.name, 0o100644, module.read_bytes()) for module in modules]
    entries.append(("TRAILER!!!", 0, b""))
    return b"".join(_cpio_entry(*entry, number) for number, entry in enumerate(entries, 1))


def vhost_disk(socket: Path, queues: int = 1, reconnect_s: int = 1) -> list[str]:
    """QEMU's arguments for a disk by vhost-user-blk."""
    chardev = f"socket,id=vhost,path={socket}" + (f",reconnect={reconnect_s}" if reconnect_s else "")
    return ["-chardev", chardev, "-device", f"vhost-user-blk-pci,chardev=vhost,num-queues={queues}"]


class Guest:
    """A running virtual machine, and the lines of its console."""

    def __init__(self, process: subprocess.Popen[str], console: Path) -> None:
        self.process = process
        self._console = console

    @property
    def console(self) -> str:
        """What the guest has printed so far, and QEMU."""
        return self._console.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether the virtual machine has not ended."""
        return self.process.poll() is None


@contextmanager
def guest(
    program: Path,
    arguments: Sequence[str],
    environment: Mapping[str, object],
    *,
    cpus: int = 2,
    kvm: bool = False,
    qemu: str = QEMU,
) -> Iterator[Guest]:
    """Run `program` in a virtual machine with more `arguments`, of its disk for one.

    `environment` becomes that of the program, by the kernel's command line. The memory is shared, as vhost-user needs.
    Without `no_timer_check` the kernel panics if an emulated CPU does not run while the kernel waits for timer ticks.
    """
    words = ["console=ttyS0", "quiet", "panic=-1", "no_timer_check"]
    words += [f"{name}={value}" for name, value in environment.items()]
    accelerator = ["-accel", "kvm", "-cpu", "host"] if kvm else ["-accel", "tcg,thread=multi", "-cpu", "max"]
    with tempfile.TemporaryDirectory(prefix="aiod-guest-") as directory:
        archive, console = Path(directory) / "initramfs", Path(directory) / "console"
        archive.write_bytes(initramfs(program, sorted(KERNEL.glob("*.ko"))))
        command = [
            qemu, "-name", "guest,debug-threads=on", "-M", "q35", *accelerator, "-smp", str(cpus), "-m", MEMORY,
            "-nodefaults", "-display", "none", "-no-reboot",
            "-object", f"memory-backend-memfd,id=memory,size={MEMORY},share=on",
            "-machine", "memory-backend=memory", "-serial", "stdio",
            "-kernel", str(KERNEL / "vmlinuz"), "-initrd", str(archive), "-append", " ".join(words), *arguments,
        ]  # fmt: skip
        with console.open("w") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, text=True
            )
            try:
                yield Guest(process, console)
            finally:
                process.kill()
                process.wait()
