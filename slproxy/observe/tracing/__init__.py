"""Tracing with OpenTelemetry: what the environment asks for, the spans of a request, and the thread that sends them."""
