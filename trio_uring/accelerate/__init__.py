"""Trio's own steps, made by C, and its scopes with fewer calls, for runs that ask for it."""
