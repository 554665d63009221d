"""aiodctl: looks into a running daemon, over the wire only."""
