"""How a run comes to io_uring: who asks for it, with which options, and which names of Trio are replaced."""
