"""One run, from its set-up through its rounds to the final scores; and its verification."""
