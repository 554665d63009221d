"""The shared-memory ring of a session: how it is attached, and the requests that go by it."""
