"""Images and videos that a request only names: fetched by the gateway, from public hosts alone."""
