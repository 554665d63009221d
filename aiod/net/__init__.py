"""Sockets that clients connect to, and the identity of the peers behind them."""
