"""`darkbloom-proxy`: end-to-end mode for every tool that can be given a base URL."""
