"""The provider agent: one Mac that serves sealed inference and earns."""
