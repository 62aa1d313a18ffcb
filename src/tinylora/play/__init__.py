"""The playground: move the numbers of an adapter by hand, and see what the model answers."""
