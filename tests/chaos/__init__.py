"""``make chaos``: hundreds of jobs through the real processes, which are killed, cut off and confused meanwhile."""
