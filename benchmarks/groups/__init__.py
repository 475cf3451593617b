"""What is measured: cases, and the jobs that measure each side of them."""
