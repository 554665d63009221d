"""Writes made durable one by one, beside others: python -m benchmarks.durable."""
