"""What supervisor and engine share to speak with each other: settings, control channel, descriptor store."""
