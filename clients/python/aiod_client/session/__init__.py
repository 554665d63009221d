"""One engine session without sockets, threads or clocks: the blocking and the asyncio client drive the same one."""
