"""The web console: static files, fenced in, and what they need to know to sign people in."""
