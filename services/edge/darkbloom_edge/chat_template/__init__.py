"""Chat templates of builds: a bounded sandbox, and fixtures that tell what a template renders."""
