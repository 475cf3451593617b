"""The loop of a run on io_uring: its I/O manager, waits for descriptors, and the life of one operation."""
