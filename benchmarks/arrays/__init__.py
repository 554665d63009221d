"""Zarr arrays in aiod's store, beside Zarr's LocalStore and fsspec's LocalFileSystem."""
