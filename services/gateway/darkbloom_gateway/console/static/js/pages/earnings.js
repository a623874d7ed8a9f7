// What one's machines earned, and the way of that money out.

import { call, query } from "../api.js";
import { barChart } from "../chart.js";
import { action, choice, confirmed, el, facts, field, form, say, table } from "../dom.js";
import { brief, count, dollars, lastDays, micros, moment } from "../format.js";

export async function show(page, { signal }) {
  const days = choice([["7", "7 days"], ["30", "30 days"], ["90", "90 days"]], "7");
  const seat = el("div", { "aria-live": "polite" });
  const [summary, recent] = await Promise.all([call("/v1/me/summary", { signal }), call("/v1/me/earnings?limit=50", { signal })]);
  const names = new Map(summary.machines.map((row) => [row.machine_key, row.name || "unnamed"]));
  const refresh = async () => draw(seat, await call(query("/v1/me/insights", { days: days.value }), { signal }), names);
  days.addEventListener("change", refresh);
  const tile = (name, value) => el("div.tile", {}, el("span.value", {}, dollars(value)), el("span.name", {}, name));
  page.append(
    el("div.tiles", {}, tile("to withdraw", summary.withdrawable_balance_micro_usd), tile("not mature yet", summary.maturing_balance_micro_usd), tile("in 7 days", summary.last_7d_micro_usd), tile("in all", summary.lifetime_micro_usd)),
    el("div.controls", {}, field("Time", days)),
    seat,
    el("h2", {}, "Newest earnings"),
    recent.earnings.length
      ? table("Newest first", ["Time", "Model", "Machine", "Tokens#", "Earned#"], recent.earnings.map((row) => [moment(row.created_at), row.model, names.get(row.machine_key) ?? row.machine, count(row.prompt_tokens + row.completion_tokens), dollars(row.amount_micro_usd)]))
      : el("p", {}, "Nothing yet. ", el("a", { href: "/console/machines" }, "Why no requests come"), "."),
    el("h2", {}, "Payouts"),
  );
  await Promise.all([refresh(), payouts(page, summary, signal)]);
}

function draw(seat, found, names) {
  const sums = new Map(lastDays(found.days).map((day) => [day, { earned: 0, jobs: 0, tokens: 0 }]));
  const machines = new Map();
  for (const row of found.rows) {
    const name = names.get(row.machine_key) ?? (row.machine_key ? "a former machine" : "rewards");
    for (const sum of [sums.get(row.day), machines.get(name) ?? machines.set(name, { earned: 0, jobs: 0, tokens: 0 }).get(name)]) {
      if (!sum) continue;
      sum.earned += row.earnings_micro_usd;
      sum.jobs += row.jobs;
      sum.tokens += row.tokens;
    }
  }
  const line = ([name, sum]) => [name, dollars(sum.earned), count(sum.jobs), brief(sum.tokens)];
  seat.replaceChildren(
    el("section.card", {}, el("h2", {}, "By day"),
      barChart("Earned by day", [...sums].map(([name, sum]) => ({ name, value: sum.earned })), dollars),
      el("details", {}, el("summary", {}, "The numbers"), table("By day, in UTC", ["Day", "Earned#", "Answers#", "Tokens#"], [...sums].reverse().map(line)))),
    machines.size ? el("section.card", {}, el("h2", {}, "By machine"), table("Each machine", ["Machine", "Earned#", "Answers#", "Tokens#"], [...machines].map(line))) : "",
  );
}

async function payouts(page, summary, signal) {
  const [status, history] = await Promise.all([call("/v1/billing/stripe/status", { signal }), call("/v1/billing/stripe/withdrawals?limit=50", { signal }).catch(() => ({ withdrawals: [] }))]);
  const card = el("section.card", {});
  page.append(card);
  if (!status.configured) {
    card.append(el("p", {}, "This gateway pays nobody out."));
    return;
  }
  const setUp = action(status.has_account ? "Continue at Stripe" : "Set payouts up", async () => {
    location.assign((await call("/v1/billing/stripe/onboard", { method: "POST", body: {} })).url);
  }, { class: "primary" });
  card.append(
    facts([["State", status.has_account ? status.status.replaceAll("_", " ") : "not set up"], status.destination_last4 && ["Goes to", `${status.destination_type} ending in ${status.destination_last4}`], status.currently_due.length && ["Stripe wants", status.currently_due.join(", ")]]),
  );
  if (status.status !== "ready") card.append(setUp);
  else card.append(withdraw(status, summary), el("div.row", {},
    action("Dashboard at Stripe", async () => location.assign((await call("/v1/billing/stripe/dashboard", { method: "POST" })).url)),
    action("Unlink", async () => {
      if (!(await confirmed("Unlink the payout account? Payouts that are on their way go on.", "Unlink"))) return;
      await call("/v1/billing/stripe/account", { method: "DELETE" });
      say("Unlinked.");
    }, { class: "danger" })));
  if (history.withdrawals.length) page.append(table("Withdrawals, newest first", ["Time", "Amount#", "Fee#", "Way", "State"], history.withdrawals.map((row) => [moment(row.created_at), dollars(row.amount_micro_usd), dollars(row.fee_micro_usd), row.method, row.failure_reason ? `${row.status}: ${row.failure_reason}` : row.status])));
}

function withdraw(status, summary) {
  const amount = el("input", { inputmode: "decimal", autocomplete: "off", required: true });
  const way = choice([["standard", "standard, 1 to 2 business days"], ...(status.instant_eligible ? [["instant", `instant, ${status.instant_fee_bps / 100} % and at least $${status.instant_fee_min_usd}`]] : [])], "standard");
  // One key for one decision: pressing again after a broken connection withdraws nothing twice.
  let key = crypto.randomUUID();
  return form("Withdraw", [field("Amount in $", amount, `From ${dollars(status.min_withdraw_micro_usd)} to ${dollars(summary.withdrawable_balance_micro_usd)}.`), field("How", way)], async () => {
    if (micros(amount.value) === null) throw new Error("the amount must be a number");
    const made = await call("/v1/billing/withdraw/stripe", { method: "POST", headers: { "Idempotency-Key": key }, body: { amount_usd: amount.value.trim(), method: way.value } });
    key = crypto.randomUUID();
    say(`$${made.net_usd} are on their way, ${made.eta}.`);
  });
}
