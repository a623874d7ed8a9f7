"""The flags about side doors change with what is there."""

import json
import subprocess
import sys

LOOK = """
import json, socket, subprocess, sys
from dataclasses import asdict
from darkbloom_provider.isolation import measure
metrics, proxy = socket.create_server(("127.0.0.1", 0)), None
port = metrics.getsockname()[1]
seen = [asdict(measure({port}))]
proxy = socket.create_server(("127.0.0.1", 0))
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
seen.append(asdict(measure({port})))
child.communicate(b"\\n")
print(json.dumps(seen))
"""


def test_a_child_and_a_second_socket_are_seen():
    done = subprocess.run(
        [sys.executable, "-c", LOOK], capture_output=True, text=True, check=True, timeout=60
    )
    alone, watched = json.loads(done.stdout)
    assert alone == {"text_backend_inprocess": True, "text_proxy_disabled": True}
    assert watched == {"text_backend_inprocess": False, "text_proxy_disabled": False}
