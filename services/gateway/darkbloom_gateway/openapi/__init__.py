"""The OpenAPI document of the gateway: `document.describe` makes it out of the routes themselves.

Paths, methods and parameters come from the application, so none can be missing or invented; the
tables here add what the code does not say by its types: who may call, bodies, answers, refusals.
"""
