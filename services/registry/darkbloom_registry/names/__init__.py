"""The names of models: pointed, taken over, made for marketplaces."""
