"""Run `python -m darkbloom_local`."""

from darkbloom_local.cli import app

if __name__ == "__main__":
    app(prog_name="darkbloom_local")
