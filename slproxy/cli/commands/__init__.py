"""The commands: ``run`` of each file is the command of that name."""
