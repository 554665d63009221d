"""aiod beside its peers: work by cache by depth by clients, cell for cell, and curves that show where it bends."""
