"""Helpers of supervisor, engine and aiodctl: logging, printable text, limits of the process."""
