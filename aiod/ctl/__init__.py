"""aiodctl: inspects and controls a running daemon, over the wire only."""
