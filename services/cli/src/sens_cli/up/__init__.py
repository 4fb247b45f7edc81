"""``sens up``: the whole platform on this machine, every service a process of its own."""
