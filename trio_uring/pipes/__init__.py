"""Trio's streams over pipes and terminals, in fewer steps."""
