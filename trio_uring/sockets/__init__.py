"""Sockets and streams: Trio's, by completions."""
