"""HTTP: the requests that come in, the responses that go out, and the sandbox's own pages."""
