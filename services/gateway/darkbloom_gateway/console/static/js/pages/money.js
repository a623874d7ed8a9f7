// What the account has, topping up, and every movement.

import { call, query } from "../api.js";
import { action, el, field, form, say, table } from "../dom.js";
import { dollars, micros, moment } from "../format.js";

const PAGE = 50;
const AMOUNTS = ["5", "10", "25", "100"];

export async function show(page, { signal, query: asked, go }) {
  const tiles = el("div.tiles", {});
  const refresh = async () => {
    const money = await call("/v1/payments/balance", { signal });
    tiles.replaceChildren(...balances(money));
    return money;
  };
  const [money, methods, topUp] = await Promise.all([refresh(), call("/v1/billing/methods", { signal }), call("/v1/billing/auto-top-up", { signal }).catch(() => null)]);
  const notice = el("p", { role: "status" });
  page.append(notice, tiles);
  if (money.frozen) page.append(el("p.fault", {}, money.debt_micro_usd ? `This account owes ${dollars(money.debt_micro_usd)}; a deposit heals that.` : "This account is frozen. Ask your operator."));
  page.append(el("div.cards.wide", {}, methods.methods.length ? deposit(methods) : el("section.card", {}, el("h2", {}, "Top up"), el("p", {}, "This gateway takes no payments.")), topUp && methods.methods.length ? automatic(topUp, go) : null, invite(refresh)));
  const ledger = el("section", {});
  page.append(ledger);
  await movements(ledger, signal);
  if (asked.has("paid") && (await arrived(asked.get("session_id"), notice, refresh, signal))) await movements(ledger, signal);
  if (asked.has("left")) notice.textContent = "Nothing was paid.";
}

function balances(money) {
  const tile = (name, value) => el("div.tile", {}, el("span.value", {}, dollars(value)), el("span.name", {}, name));
  return [
    tile("to spend", money.balance_micro_usd),
    tile("bought", money.purchased_micro_usd),
    tile("earned", money.earned_micro_usd),
    money.promo_micro_usd ? tile("given", money.promo_micro_usd) : null,
    money.held_micro_usd ? tile("held for running requests", money.held_micro_usd) : null,
    money.maturing_micro_usd ? tile("earned, not mature", money.maturing_micro_usd) : null,
    money.disputed_micro_usd ? tile("disputed", money.disputed_micro_usd) : null,
  ].filter(Boolean);
}

function deposit(methods) {
  const amount = el("input", { inputmode: "decimal", autocomplete: "off", required: true, value: "10", list: "amounts" });
  const save = el("input", { type: "checkbox" });
  return el("section.card", {}, el("h2", {}, "Top up"),
    form("Pay by card", [
      field("Amount in $", amount, `At least ${dollars(methods.min_deposit_micro_usd)}.`),
      el("div.row", {}, AMOUNTS.map((one) => el("button", { type: "button", onclick: () => (amount.value = one) }, `$${one}`))),
      el("label.check", {}, save, "Keep the card for automatic top-ups"),
      methods.fee_line ? el("p.hint", {}, "The card company's fee comes on top, as a line of its own.") : null,
    ], async () => {
      const wanted = micros(amount.value);
      if (wanted === null || wanted < methods.min_deposit_micro_usd) throw new Error(`the amount must be at least ${dollars(methods.min_deposit_micro_usd)}`);
      const made = await call("/v1/billing/stripe/create-session", { method: "POST", headers: { "Idempotency-Key": crypto.randomUUID() }, body: { amount_usd: amount.value.trim(), save_card: save.checked } });
      say(`Going to the card page: ${made.total_usd} $ in all.`);
      location.assign(made.url);
    }));
}

function automatic(found, go) {
  const [on, below, amount, cap] = ["checkbox", "text", "text", "text"].map((type) => el("input", { type, inputmode: type === "text" ? "decimal" : null }));
  on.checked = found.enabled;
  [below.value, amount.value, cap.value] = [found.threshold_usd, found.amount_usd, found.monthly_cap_usd];
  return el("section.card", {}, el("h2", {}, "Automatic top-up"),
    el("p", {}, found.card ? `Card ${found.card.brand} ending in ${found.card.last4}; $${found.month_usd} this month.` : "No card is saved."),
    found.disabled_reason ? el("p.fault", {}, `Switched off: ${found.disabled_reason}`) : null,
    form("Save", [
      el("label.check", {}, on, "Top up by itself"),
      el("div.grid", {}, field("When below $", below), field("Pay in $", amount), field("At most a month in $", cap)),
    ], async () => {
      await call("/v1/billing/auto-top-up", { method: "PUT", body: on.checked ? { enabled: true, threshold_usd: below.value, amount_usd: amount.value, monthly_cap_usd: cap.value } : { enabled: false } });
      say("Saved.");
    }),
    el("div.row", {},
      action(found.card ? "Another card" : "Save a card", async () => location.assign((await call("/v1/billing/card", { method: "POST" })).url)),
      found.card ? action("Forget the card", async () => { await call("/v1/billing/card", { method: "DELETE" }); await go("/console/money", true); }, { class: "danger" }) : null,
    ));
}

function invite(refresh) {
  const code = el("input", { autocomplete: "off", required: true, maxlength: "64" });
  return el("section.card", {}, el("h2", {}, "Invite"),
    form("Redeem", [field("Code", code)], async () => {
      const found = await call("/v1/invite/redeem", { method: "POST", body: { code: code.value.trim() } });
      say(`$${found.credited_usd} credited.`);
      await refresh();
    }));
}

/** Waits for the deposit that the card page has led back from. */
async function arrived(session, notice, refresh, signal) {
  notice.textContent = "Waiting for the payment to arrive…";
  const before = (await refresh()).purchased_micro_usd;
  for (let tries = 0; tries < 20 && !signal.aborted; tries += 1) {
    const done = session ? await call(query("/v1/billing/stripe/session", { id: session }), { signal }).then((found) => found.completed_at !== null, () => false) : false;
    const money = await refresh();
    if (done || money.purchased_micro_usd > before) {
      notice.textContent = "Paid. The money is here.";
      return true;
    }
    await new Promise((wake) => setTimeout(wake, 1000));
  }
  notice.textContent = "Paid. The card page has not told us yet; the balance changes by itself.";
  return false;
}

async function movements(seat, signal) {
  const rows = [];
  const holder = el("div", {});
  seat.replaceChildren(el("h2", {}, "Movements"), holder);
  const load = async (token) => {
    const found = await call(query("/v1/payments/ledger", { limit: PAGE, page_token: token }), { signal });
    rows.push(...found.entries.map((row) => [moment(row.created_at), row.type.replaceAll("_", " "), row.wallet, dollars(row.amount_micro_usd), dollars(row.balance_after)]));
    holder.replaceChildren(
      rows.length ? table("Newest first; holds are given back or charged when a request ends", ["Time", "What", "Purse", "Amount#", "Free after#"], rows) : el("p", {}, "Nothing has moved yet."),
      found.next_page_token ? action("Show more", () => load(found.next_page_token)) : "",
    );
  };
  await load("");
}
