"""What `make run` shows once the mesh answers."""

from darkbloom_local.mesh import Mesh

_WARNING = """\
  DEVELOPMENT MODE: this machine proves nothing about itself, so answers are UNATTESTED
  (trust level none, admission development). Never put this in front of other people."""


def banner(mesh: Mesh, model: str) -> str:
    """Return the text: how to ask with curl and with the SDK, and what this is not."""
    key_file = mesh.state.root / "keys" / "api-key"
    return f"""
{"=" * 92}
{_WARNING}
{"=" * 92}

  gateway   {mesh.url}/v1
  console   {mesh.url}/console/
  model     {model}
  API key   {mesh.api_key}   (kept in {key_file})
  logs      {mesh.state.root / "logs"}

  curl -N {mesh.url}/v1/chat/completions \\
    -H "Authorization: Bearer {mesh.api_key}" -H "Content-Type: application/json" \\
    -d '{{"model": "{model}", "stream": true, "max_tokens": 64,
         "messages": [{{"role": "user", "content": "What is the capital of France?"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{mesh.url}/v1", api_key="{mesh.api_key}")
  for chunk in client.chat.completions.create(
      model="{model}", stream=True, max_tokens=64,
      messages=[{{"role": "user", "content": "What is the capital of France?"}}],
  ):
      if chunk.choices:
          print(chunk.choices[0].delta.content or "", end="", flush=True)

{_stripe(mesh)}  make ask Q="What is the capital of France?"

  Sign in as a person (a development issuer, here only) and make a key of your own:
  curl -s {mesh.url}/v1/keys -H "Authorization: Bearer $(make -s token)" -d '{{"limit_usd": 1}}'

  Ctrl-C drains and stops everything; the data stays in {mesh.state.root}.
"""


def _stripe(mesh: Mesh) -> str:
    """Return how to play the customer of a local Stripe; nothing without one."""
    if mesh.stripe_url is None:
        return ""
    return f"""  LOCAL STRIPE: NO REAL MONEY. Customers and banks are played at {mesh.stripe_url}

  curl {mesh.url}/v1/billing/stripe/create-session \\
    -H "Authorization: Bearer {mesh.api_key}" -d '{{"amount_usd": "10.00"}}'
  curl {mesh.stripe_url}/control/pay -d '{{"session": "cs_test_…"}}'

"""
