"""Sockets to the daemon: a ZeroMQ connection, handshakes over it, reconnection. Blocking calls, from any thread."""
