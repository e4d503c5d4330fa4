"""Starting a run on many machines, or as many processes on one: docs/launch.md."""
