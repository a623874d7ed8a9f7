"""The real attestation with the roots of a throw-away Apple, handed over by its constructor."""

import sys

from darkbloom_attestation import app
from darkbloom_attestation.config import AttestationConfig
from darkbloom_mesh.config import main_config
from darkbloom_mesh.serve import run

from tests.mesh.minted.authority import roots

if __name__ == "__main__":
    config = main_config(AttestationConfig, app.ROOM)
    sys.exit(run(lambda: app.serve(config, roots=roots())))
