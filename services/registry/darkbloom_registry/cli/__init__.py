"""`darkbloom-publish`: hash, upload, register, promote, name and roll out models."""
