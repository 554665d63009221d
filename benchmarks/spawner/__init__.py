"""The spawner beside other policies of creating and waking workers: one burst of blocking requests for each."""
