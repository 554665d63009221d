r"""aiod as a file system of fsspec: aiod://EXPORT/PATH in pandas, pyarrow, xarray, Dask, duckdb and others.

    import fsspec

    with fsspec.open("aiod://scratch/table.csv", "w") as f:
        f.write("a,b\n1,2\n")

Needs the extra `fsspec`. docs/data.md has the options and examples.
"""

from aiod_client.fsspec.file_system import AiodFileSystem

__all__ = ["AiodFileSystem"]
