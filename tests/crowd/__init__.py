"""Many real agents in few processes, for stories and measurements of a large fleet."""
