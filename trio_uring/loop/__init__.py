"""The loop of a run on io_uring: its I/O manager, its waits for descriptors, and the life of an operation."""
