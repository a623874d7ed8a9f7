"""The agent as a background service: installed per user, drained before it stops, watched."""
