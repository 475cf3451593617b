"""What is told of the measurements: the results that are kept, sentences, charts and tables."""
