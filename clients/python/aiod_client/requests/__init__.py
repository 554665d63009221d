"""What a program asks of the daemon: requests and calls, their paths, payloads and parts. Needs no session."""
