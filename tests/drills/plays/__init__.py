"""One module a drill: what breaks, and how one sees that nothing else does."""
