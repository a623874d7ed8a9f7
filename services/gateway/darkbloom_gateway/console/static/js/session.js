// Who is signed in. The login lives in this tab only (sessionStorage): it ends with the tab, no other
// site can make this one use it, and there are no cookies.

const KEY = "darkbloom.login";
const WAY = "darkbloom.sign-in";
const PATIENCE_MS = 20_000;

class Session extends EventTarget {
  #config = null;

  /** What the gateway says about signing in. */
  async load() {
    const answer = await fetch("/console/config.json", { signal: AbortSignal.timeout(PATIENCE_MS), credentials: "omit" });
    if (!answer.ok) throw new Error(`the gateway answered ${answer.status}`);
    this.#config = await answer.json();
  }

  get config() {
    return this.#config ?? { sign_in: null, environment: "", version: "" };
  }

  /** The login that calls carry; null where nobody is signed in, or it is over. */
  token() {
    const kept = sessionStorage.getItem(KEY);
    if (!kept) return null;
    const claims = claimsOf(kept);
    if (!claims || !(claims.exp * 1000 > Date.now())) {
      this.expired();
      return null;
    }
    return kept;
  }

  /** E-mail or name of who is signed in, for the eye only: the gateway decides who it is. */
  name() {
    const claims = claimsOf(sessionStorage.getItem(KEY) ?? "");
    return claims?.email ?? claims?.name ?? "signed in";
  }

  /** Leaves for the issuer's page; comes back to `/console/callback`. */
  async begin(back) {
    const where = this.config.sign_in;
    if (!where) throw new Error("no issuer is set up on this gateway");
    const [verifier, state, nonce] = [random(), random(), random()];
    sessionStorage.setItem(WAY, JSON.stringify({ verifier, state, nonce, back }));
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
    const asked = new URLSearchParams({
      response_type: "code",
      client_id: where.client_id,
      redirect_uri: callback(),
      scope: "openid email profile",
      state,
      nonce,
      code_challenge: url64(new Uint8Array(hash)),
      code_challenge_method: "S256",
    });
    location.assign(`${where.authorize_url}${where.authorize_url.includes("?") ? "&" : "?"}${asked}`);
  }

  /** Changes the code that the issuer sent for a login; returns the page that was wanted. */
  async finish(parameters) {
    const way = JSON.parse(sessionStorage.getItem(WAY) ?? "null");
    sessionStorage.removeItem(WAY);
    if (parameters.get("error")) throw new Error(`the issuer refused: ${parameters.get("error")}`);
    if (!way || parameters.get("state") !== way.state) throw new Error("this sign-in was not begun in this tab");
    const answer = await fetch(this.config.sign_in.token_url, {
      method: "POST",
      body: new URLSearchParams({
        grant_type: "authorization_code",
        client_id: this.config.sign_in.client_id,
        code: parameters.get("code") ?? "",
        redirect_uri: callback(),
        code_verifier: way.verifier,
      }),
      credentials: "omit",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (!answer.ok) throw new Error(`the issuer answered ${answer.status}`);
    const login = (await answer.json()).id_token;
    const claims = claimsOf(login ?? "");
    if (!claims || claims.nonce !== way.nonce) throw new Error("the issuer's answer is not to this sign-in");
    sessionStorage.setItem(KEY, login);
    this.#changed();
    return way.back;
  }

  /** Forgets the login; the issuer may still know the person. */
  end() {
    sessionStorage.removeItem(KEY);
    this.#changed();
  }

  /** As `end`, because the login is not accepted any more. */
  expired() {
    if (sessionStorage.getItem(KEY)) this.end();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export const session = new Session();

const callback = () => `${location.origin}/console/callback`;
const random = () => url64(crypto.getRandomValues(new Uint8Array(32)));
const url64 = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");

/** Reads a JWT's claims, without believing them. */
function claimsOf(token) {
  try {
    const text = atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (char) => char.charCodeAt(0))));
  } catch {
    return null;
  }
}
