// One's own machines: how they stand, what vouches for them, why no requests come.

import { call } from "../api.js";
import { claimList } from "../claims.js";
import { action, confirmed, el, facts, say } from "../dom.js";
import { ago, count, dollars, gigabytes, moment } from "../format.js";
import { checkMachine, publishedKeys } from "../verify.js";

const REFRESH_MS = 15_000;

export async function show(page, { signal }) {
  const tiles = el("div.tiles", {});
  const list = el("div.cards.wide", {});
  const tokens = el("div", {});
  const refresh = async () => {
    const [found, summary] = await Promise.all([call("/v1/me/providers", { signal }), call("/v1/me/summary", { signal })]);
    tiles.replaceChildren(...figures(summary));
    list.replaceChildren(...(found.data.length ? found.data.map((row) => machine(row, found, refresh)) : [guide()]));
  };
  page.append(tiles, list, el("h2", {}, "Logins of machines"), tokens);
  await Promise.all([refresh(), logins(tokens, signal)]);
  const timer = setInterval(() => {
    // A check that somebody reads is not taken away from under his eyes.
    if (!document.hidden && !list.querySelector(".claims, details[open]")) refresh().catch(() => {});
  }, REFRESH_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
}

function figures(summary) {
  const tile = (name, value) => el("div.tile", {}, el("span.value", {}, value), el("span.name", {}, name));
  return [
    tile("online", `${summary.counts.online} of ${summary.counts.total}`),
    tile("need attention", count(summary.counts.needs_attention)),
    tile("earned in 24 hours", dollars(summary.last_24h_micro_usd)),
    tile("earned in all", dollars(summary.lifetime_micro_usd)),
  ];
}

function guide() {
  return el("section.card", {}, el("h2", {}, "Lend a Mac"),
    el("p", {}, "It needs Apple Silicon, 16 GB of memory, macOS 14 or later, and the agent of your network. Then, on that machine:"),
    el("pre", { tabindex: "0", "aria-label": "Commands" }, `darkbloom config set coordinator.gateway ${location.origin}\ndarkbloom login      # shows a code\ndarkbloom doctor     # looks at everything\ndarkbloom start`),
    el("p", {}, el("a", { href: "/console/link" }, "Type the code in here"), ". From then on what the machine earns is yours."));
}

function machine(row, known, refresh) {
  const online = row.status === "online";
  const old = row.version && known.min_provider_version && row.version !== known.latest_provider_version;
  const seat = el("div", {});
  return el("section.card", {},
    el("h3", {}, row.name || "Unnamed machine", el(`span.badge.${online ? "good" : "open"}`, {}, row.status)),
    facts([
      row.hardware && ["Hardware", [row.hardware.chip_name, row.hardware.machine_model, gigabytes(row.hardware.memory_gb)].filter(Boolean).join(", ") || "not said"],
      row.trust_level && ["Trust", `${row.trust_level}${row.has_verdict ? "" : ", no verdict in force"}`],
      row.version && ["Version", old ? `${row.version}; newest is ${known.latest_provider_version}` : row.version],
      row.models && ["Models", row.models.join(", ") || "none"],
      row.slots?.length && ["Now", row.slots.map((slot) => `${slot.model}: ${slot.state.replaceAll("_", " ")}, ${slot.running} running${slot.waiting ? `, ${slot.waiting} waiting` : ""}`).join("; ")],
      ["Earned", `${dollars(row.earnings_micro_usd)} for ${count(row.jobs)} answers`],
      row.last_challenge_at && ["Last challenge", ago(row.last_challenge_at)],
      ["Linked", moment(row.linked_at)],
    ]),
    standing(row, online),
    el("div.row", {},
      row.provider_id ? action("Check its evidence", async () => seat.replaceChildren(await evidence(row.provider_id))) : null,
      action("Unlink", async () => {
        if (!(await confirmed(`Unlink “${row.name || "this machine"}”? Nothing new is paid then. What it was asked before still is.`, "Unlink"))) return;
        await call(`/v1/me/providers/${row.machine_key.replaceAll("+", "-").replaceAll("/", "_")}`, { method: "DELETE" });
        say("Unlinked.");
        await refresh();
      }, { class: "danger" }),
    ),
    seat,
  );
}

/** Why requests come or do not, in the router's own words. */
function standing(row, online) {
  if (!online && !row.provider_id) return el("div.blocker", {}, el("p", {}, el("strong", {}, "It is not connected. "), "On the machine: ", el("code", {}, "darkbloom status"), ", then ", el("code", {}, "darkbloom doctor"), "."));
  if (row.private_only) return el("div.blocker", {}, el("p", {}, el("strong", {}, "It serves only you. "), "That is how it is set."));
  if (row.blockers === undefined) return el("p.hint", {}, "The router does not say now whether requests come.");
  if (!row.blockers.length) return el("p.good", {}, "Every gate is open: requests come as they are asked.");
  return el("div", {}, el("h4", {}, "Why no requests come"), row.blockers.map((one) => el("div.blocker", {},
    el("p", {}, el("strong", {}, one.id.replaceAll("_", " ")), ` · ${one.model}`),
    el("p", {}, one.evidence),
    one.remedy ? el("p", {}, "Do: ", one.remedy) : null)));
}

async function evidence(id) {
  const found = (await call(`/v1/providers/attestation?provider_id=${encodeURIComponent(id)}`)).providers[0];
  if (!found) return el("p.hint", {}, "Nothing is published of a machine that serves only its owner.");
  return claimList(await checkMachine(found, await publishedKeys()));
}

async function logins(seat, signal) {
  const found = (await call("/v1/me/tokens", { signal })).data;
  seat.replaceChildren(...(found.length
    ? found.map((token) => el("section.card", {}, facts([["Machine", token.machine_name || "unnamed"], ["Token", el("code", {}, token.label)], ["Since", moment(token.created_at)]]),
        action("End it", async () => {
          await call(`/v1/me/tokens/${encodeURIComponent(token.id)}`, { method: "DELETE" });
          await logins(seat, signal);
        }, { class: "danger" })))
    : [el("p", {}, "No machine has logged in by code. ", el("a", { href: "/console/link" }, "Type a code in"), ".")]));
}
