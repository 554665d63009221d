"""The spawner beside other ways of creating and waking workers: one burst of blocking requests, policy by policy."""
