"""Who is measured: runtimes and how they are told apart, servers, libraries for files."""
