"""What lies on disk: categories of training and test samples, and the reading of their files."""
