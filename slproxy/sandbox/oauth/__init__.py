"""OAuth: the decisions of the authorize, token and revoke endpoints, and every token that was issued."""
