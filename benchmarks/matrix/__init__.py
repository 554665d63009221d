"""aiod beside its peers: operations by cache state, queue depth and clients, cell by cell, and curves."""
