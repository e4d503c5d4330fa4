"""The mesh of devices, the one table of layouts, and the start of several processes."""
