"""Durable writes, beside peers: python -m benchmarks.durable."""
