"""One engine process: the way of a request from the ROUTER socket to the native pool and back."""
