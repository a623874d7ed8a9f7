// What everybody may see: capacity, totals, who leads, who is connected and what vouches for it.

import { call, query } from "../api.js";
import { barChart } from "../chart.js";
import { claimList } from "../claims.js";
import { action, choice, el, facts, field, table } from "../dom.js";
import { ago, brief, count, dollars, gigabytes, short } from "../format.js";
import { checkLog, checkMachine, publishedKeys } from "../verify.js";

const PAGE = 50;

export async function show(page, { signal }) {
  const [stats, capacity] = await Promise.all([call("/v1/stats", { signal }).catch(() => null), call("/v1/models/capacity", { signal }).catch(() => ({ models: [] }))]);
  const board = el("section", {});
  const people = el("section", {});
  const log = el("section.card", {}, el("h2", {}, "Transparency log"),
    el("p", {}, "Releases, keys, catalogs and batches of receipts, in a log that can only grow. This browser remembers the head that it saw last, and checks that it is still a part of it."));
  const seat = el("div", {});
  log.append(action("Check the log", async () => seat.replaceChildren(claimList(await checkLog(await publishedKeys())))), seat);
  page.append(figures(stats), models(capacity.models), board, people, log, gateway());
  await Promise.all([leaders(board, signal), machines(people, signal)]);
}

/** What backs the gateway's word that it keeps nothing; its quote is shown, never believed here. */
function gateway() {
  const seat = el("div", {});
  const ask = async () => {
    const nonce = Array.from(crypto.getRandomValues(new Uint8Array(32)), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const found = await call(query("/v1/gateway/evidence", { nonce }));
    seat.replaceChildren(
      el("p", {}, found.quote ? `A ${found.quote.kind} quote is shown. Its signature is not checked in a browser.` : `No hardware evidence (${found.why_none}).`),
      el("p", {}, "Not proven:"), el("ul", {}, found.not_proven.map((row) => el("li", {}, `${row.what}: ${row.why}`))));
  };
  return el("section.card", {}, el("h2", {}, "This gateway"),
    el("p", {}, "In edge mode the gateway sees prompts while they run. What backs its word that it keeps nothing?"), action("Ask the gateway", ask), seat);
}

function figures(stats) {
  if (!stats) return el("p", {}, "The figures are not ready yet.");
  const tile = (name, value) => el("div.tile", {}, el("span.value", {}, value), el("span.name", {}, name));
  const minutes = halfHour(stats);
  return el("section", {},
    el("div.tiles", {}, tile("machines online", count(stats.active_providers)), tile("answers", brief(stats.total_requests)), tile("tokens", brief(stats.total_tokens)), stats.total_memory_gb ? tile("GB of memory", brief(stats.total_memory_gb)) : null, stats.total_gpu_cores ? tile("GPU cores", brief(stats.total_gpu_cores)) : null),
    stats.time_series.length ? el("section.card", {}, el("h2", {}, "The last half hour"), barChart("Requests by minute", minutes, brief),
      el("details", {}, el("summary", {}, "The numbers"), table("By minute, in UTC", ["Minute", "Requests#", "Tokens#"], stats.time_series.map((row) => [row.minute.slice(11, 16), count(row.requests), count(row.prompt_tokens + row.completion_tokens)])))) : null,
    el("p.hint", {}, `As of ${ago(stats.snapshot_at)}.`));
}

/** Every minute of the last thirty, those in which nothing was asked too. */
function halfHour({ time_series: series, snapshot_at: at }) {
  const known = new Map(series.map((row) => [row.minute.slice(0, 16), row.requests]));
  return Array.from({ length: 30 }, (_, back) => {
    const minute = new Date(Date.parse(at) - (29 - back) * 60_000).toISOString().slice(0, 16);
    return { name: minute.slice(11), value: known.get(minute) ?? 0 };
  });
}

function models(rows) {
  if (!rows.length) return el("p", {}, "No model is listed.");
  return el("section.card", {}, el("h2", {}, "Capacity now"),
    table("What each model can take", ["Model", "State", "Machines#", "Loaded#", "Running#", "Waiting#"], rows.map((row) => [row.id, row.can_accept ? el("span.badge.good", {}, "ready") : el("span.badge.open", {}, row.ready ? "full" : "away"), count(row.routable_providers), count(row.warm_providers), count(row.active_requests), count(row.queued_requests)])));
}

async function leaders(seat, signal) {
  const metric = choice([["earnings", "earnings"], ["tokens", "tokens"], ["jobs", "answers"]], "earnings");
  const window = choice([["24h", "24 hours"], ["7d", "7 days"], ["30d", "30 days"], ["all", "all time"]], "7d");
  const holder = el("div", { "aria-live": "polite" });
  const refresh = async () => {
    try {
      const found = await call(query("/v1/leaderboard", { metric: metric.value, window: window.value, limit: 25 }), { signal });
      holder.replaceChildren(found.entries.length
        ? table("Under the names that they chose", ["#", "Who", "Earned#", "Tokens#", "Answers#"], found.entries.map((row) => [String(row.rank), row.pseudonym, dollars(row.earnings_micro_usd), brief(row.tokens), count(row.jobs)]))
        : el("p", {}, "Nobody has earned in this time."));
    } catch (error) {
      if (!signal.aborted) holder.replaceChildren(el("p.hint", {}, error.message));
    }
  };
  for (const control of [metric, window]) control.addEventListener("change", refresh);
  seat.append(el("section.card", {}, el("h2", {}, "Leaders"), el("div.controls", {}, field("By", metric), field("In", window)), holder));
  await refresh();
}

async function machines(seat, signal) {
  seat.append(el("h2", {}, "Machines"), el("p", {}, "What each one says of itself, and what backs it. Checks run in this browser, with the keys that this gateway publishes: they show that the papers fit together. To check the gateway too, use ", el("code", {}, "darkbloom verify"), " with keys that you keep."));
  const list = el("div.cards.wide", {});
  const more = el("div", {});
  seat.append(list, more);
  const load = async (token) => {
    const found = await call(query("/v1/providers/attestation", { limit: PAGE, page_token: token }), { signal });
    list.append(...found.providers.map(machine));
    if (!list.children.length) list.append(el("p", {}, "Nobody is connected."));
    more.replaceChildren(found.next_page_token ? action("Show more", () => load(found.next_page_token)) : "");
  };
  await load("");
}

function machine(row) {
  const seat = el("div", {});
  const attested = row.trust_level === "hardware";
  return el("section.card", {},
    el("h3", {}, row.chip_name || "A machine", el(attested ? "span.badge.good" : "span.badge.open", {}, attested ? "attested hardware" : `trust ${row.trust_level}`)),
    facts([
      ["Session", el("code", {}, short(row.provider_id, 17))],
      ["Hardware", [row.hardware_model, gigabytes(row.memory_gb), row.gpu_cores && `${row.gpu_cores} GPU cores`].filter(Boolean).join(", ") || "not said"],
      ["Models", row.models.join(", ") || "none"],
      ["Version", row.version || "not said"],
      ["Last challenge", ago(row.last_challenge_at)],
      ["Evidence", row.evidence.map((piece) => `${piece.kind.replaceAll("_", " ")} (${piece.backing.replaceAll("_", " ")})`).join(", ") || "none"],
    ]),
    action("Check it", async () => {
      // Read anew: verdicts last 16 minutes, pages stay open for longer.
      const fresh = (await call(query("/v1/providers/attestation", { provider_id: row.provider_id }))).providers[0];
      seat.replaceChildren(fresh ? claimList(await checkMachine(fresh, await publishedKeys())) : el("p", {}, "It is not connected any more."));
    }),
    seat);
}
