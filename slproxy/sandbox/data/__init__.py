"""SalesLoft's data: its published operations and schemas, and one team's records."""
