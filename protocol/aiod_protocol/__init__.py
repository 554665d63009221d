"""What a client and the daemon agree on; docs/protocol.md and docs/ring.md define it. Imports neither of them."""
