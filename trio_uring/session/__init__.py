"""How a run comes to io_uring: what is asked for, by whom, and what is put in the place of Trio's names."""
