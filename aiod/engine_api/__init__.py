"""The interface between supervisor and engine: settings, control channel, descriptor store messages."""
