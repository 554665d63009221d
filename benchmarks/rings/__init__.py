"""Many rings: many busy clients, idle rings beside busy ones, and one CPU for the clients and the engine."""
