"""The ring itself: its options, what a kernel has, how it is opened, and why it is refused."""
