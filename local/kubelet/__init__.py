"""The pod runner: Pods as processes, forked from a warm parent."""
