"""`make bench`: our mesh and a bare LiteLLM proxy, measured alike in one run."""
