"""Pure library of both ends of a sealed request: envelope, dialects, transcript, receipt."""
