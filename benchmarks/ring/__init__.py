"""aiod's shared-memory ring beside its peers: NBD servers, fio in one process, libnbd, caio, aiofiles, executors."""
