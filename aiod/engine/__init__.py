"""An engine process: from the ROUTER socket to the native pool, and back."""
