"""Search of settings over Ray Tune: what is tried, how a trial runs, what was found."""
