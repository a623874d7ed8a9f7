"""Models: builds, their immutable versions and manifests, public names, and the catalog watch.

The registry answers three questions: is a build real, are its bytes right, and what does a public
name mean today. It alone writes them; everybody else holds a snapshot with a generation.
"""
