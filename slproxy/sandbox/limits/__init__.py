"""What stops a good request: the team's budget, and faults on demand."""
