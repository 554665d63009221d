"""The supervisor: starts, watches and stops the engines, and answers at the front endpoint."""
