"""Remote clients: aiod over ZeroMQ beside nbdkit over TCP, encrypted and not, between two network namespaces."""
