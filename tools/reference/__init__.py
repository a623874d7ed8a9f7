"""Reference pages that are generated from the code, and the map of the documentation."""
