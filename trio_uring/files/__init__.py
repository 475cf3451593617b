"""Files and paths: Trio's, without threads where the kernel can do without."""
