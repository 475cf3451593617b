"""The command that a user runs: ``python -m trio_uring``, with its doctor."""
