"""One module per HTTP dialect; inside the mesh there is only the canonical request."""
