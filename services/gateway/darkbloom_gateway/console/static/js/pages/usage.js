// What was asked and what it cost, by day, model and key.

import { call, query, reach } from "../api.js";
import { barChart } from "../chart.js";
import { action, choice, el, field, table } from "../dom.js";
import { brief, count, dollars, lastDays, moment } from "../format.js";

const MOST = 5000;
const PAGE = 1000;
const SHOWN = 50;

export async function show(page, { signal }) {
  const keys = (await call("/v1/keys", { signal })).data;
  const names = new Map(keys.map((key) => [key.id, key.name || key.label]));
  const days = choice([["7", "7 days"], ["30", "30 days"]], "7");
  const key = choice([["", "all"], ...names], "");
  const measure = choice([["cost", "cost"], ["tokens", "tokens"], ["requests", "requests"]], "cost");
  const seat = el("div", { "aria-live": "polite" });
  const refresh = async () => draw(seat, await usage(Number(days.value), key.value, signal), Number(days.value), measure.value, names);
  for (const control of [days, key, measure]) control.addEventListener("change", refresh);
  page.append(
    el("div.controls", {}, field("Time", days), field("Key", key), field("Show", measure)),
    seat,
    action("Save everything as CSV", async () => save(await (await reach(query("/v1/payments/usage", { format: "csv", key_id: key.value }), { patience: 120_000 })).blob())),
  );
  await refresh();
}

async function usage(days, key, signal) {
  const rows = [];
  let token = "";
  do {
    const found = await call(query("/v1/payments/usage", { limit: PAGE, page_token: token, from: lastDays(days)[0], key_id: key }), { signal });
    rows.push(...found.usage);
    token = found.next_page_token ?? "";
  } while (token && rows.length < MOST);
  return { rows, cut: Boolean(token) };
}

function draw(seat, { rows, cut }, days, measure, names) {
  const of = { cost: (row) => row.cost_micro_usd, tokens: (row) => row.prompt_tokens + row.completion_tokens, requests: () => 1 }[measure];
  const label = measure === "cost" ? dollars : brief;
  const sums = new Map(lastDays(days).map((day) => [day, { value: 0, cost: 0, tokens: 0, requests: 0 }]));
  const models = new Map();
  for (const row of rows) {
    for (const sum of [sums.get(row.timestamp.slice(0, 10)), models.get(row.model) ?? models.set(row.model, { value: 0, cost: 0, tokens: 0, requests: 0 }).get(row.model)]) {
      if (!sum) continue;
      sum.value += of(row);
      sum.cost += row.cost_micro_usd;
      sum.tokens += row.prompt_tokens + row.completion_tokens;
      sum.requests += 1;
    }
  }
  const line = ([name, sum]) => [name, dollars(sum.cost), count(sum.tokens), count(sum.requests)];
  const total = [...models.values()].reduce((all, sum) => ({ cost: all.cost + sum.cost, tokens: all.tokens + sum.tokens, requests: all.requests + sum.requests }), { cost: 0, tokens: 0, requests: 0 });
  const tile = (name, value) => el("div.tile", {}, el("span.value", {}, value), el("span.name", {}, name));
  seat.replaceChildren(
    cut ? el("p.hint", {}, `Only the newest ${count(rows.length)} requests are counted here; the CSV has all.`) : "",
    el("div.tiles", {}, tile("cost", dollars(total.cost)), tile("tokens", count(total.tokens)), tile("requests", count(total.requests))),
    el("section.card", {}, el("h2", {}, "By day"),
      barChart(`${measure} by day`, [...sums].map(([name, sum]) => ({ name, value: sum.value })), label),
      el("details", {}, el("summary", {}, "The numbers"), table("By day, in UTC", ["Day", "Cost#", "Tokens#", "Requests#"], [...sums].reverse().map(line)))),
    rows.length ? el("section.card", {}, el("h2", {}, "By model"), table("Each model", ["Model", "Cost#", "Tokens#", "Requests#"], [...models].map(line))) : "",
    el("h2", {}, "Newest requests"),
    rows.length
      ? table("Newest first", ["Time", "Model", "Key", "In#", "Out#", "Cost#", "End"], rows.slice(0, SHOWN).map((row) => [moment(row.timestamp), row.model, names.get(row.key_id) ?? (row.key_id ? "a former key" : "signed in"), count(row.prompt_tokens), count(row.completion_tokens), dollars(row.cost_micro_usd), row.outcome.replaceAll("_", " ")]))
      : el("p", {}, "No requests in this time."),
  );
}

function save(blob) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: "usage.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
