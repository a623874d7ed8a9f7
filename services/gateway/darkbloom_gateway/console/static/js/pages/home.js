// The first page: what this is, or how one's account stands.

import { call } from "../api.js";
import { el } from "../dom.js";
import { brief, dollars } from "../format.js";
import { session } from "../session.js";

const card = (title, text, href, link) => el("section.card", {}, el("h2", {}, title), el("p", {}, text), el("p", {}, el("a", { href }, link)));

export async function show(page, { signal }) {
  if (!session.token()) {
    page.append(
      el("p.lead", {}, "Private inference on other people's Macs. You change the base URL; a provider's machine answers; every answer carries a receipt that you can check."),
      el("div.cards", {},
        card("Use it", "Chat in the browser, or point the SDK that you already have at this gateway.", "/console/chat", "Open the playground"),
        card("Lend a Mac", "It earns every cent that its tokens cost. One command links it to your account.", "/console/machines", "Your machines"),
        card("Check it", "Who is connected, what vouches for each machine, and a log that can only grow.", "/console/network", "Look at the network"),
      ),
      el("pre", { tabindex: "0", "aria-label": "Example" }, snippet()),
    );
    return;
  }
  const tile = (name, value, href) => el("a.tile", { href }, el("span.value", {}, value), el("span.name", {}, name));
  const [money, summary, keys] = await Promise.all([call("/v1/payments/balance", { signal }), call("/v1/me/summary", { signal }), call("/v1/keys", { signal })]);
  page.append(
    el("p.lead", {}, `Welcome, ${session.name()}.`),
    el("div.tiles", {},
      tile("balance", dollars(money.balance_micro_usd), "/console/money"),
      tile("keys", String(keys.data.filter((key) => !key.disabled).length), "/console/keys"),
      tile("machines online", `${summary.counts.online} of ${summary.counts.total}`, "/console/machines"),
      tile("earned in 7 days", dollars(summary.last_7d_micro_usd), "/console/earnings"),
      tile("answered in 7 days", brief(summary.last_7d_jobs), "/console/earnings"),
    ),
    el("p.fault", {}, money.frozen ? "This account is frozen. A deposit heals a debt; otherwise ask your operator." : null),
    el("h2", {}, "From a program"),
    el("pre", { tabindex: "0", "aria-label": "Example" }, snippet()),
  );
}

const snippet = () => `from openai import OpenAI

client = OpenAI(base_url="${location.origin}/v1", api_key="sk-db-…")
answer = client.chat.completions.create(
    model="…",
    messages=[{"role": "user", "content": "What is the capital of France?"}],
)`;
