"""aiod: a daemon that carries out blocking file I/O for programs that must not stall."""

__version__ = "0.1.0"
