"""The blocking client, for threads. Its public names are those of `aiod_client`."""
