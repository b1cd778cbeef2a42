"""The API under ``/v2``: operations, and what they do to the records."""
