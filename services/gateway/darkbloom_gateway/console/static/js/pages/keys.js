// API keys: made here, shown once, limited, exchanged, revoked.

import { call } from "../api.js";
import { action, choice, confirmed, el, facts, field, form, reveal, say } from "../dom.js";
import { ago, moment } from "../format.js";

const RESETS = [["none", "for ever"], ["daily", "each day"], ["weekly", "each week"], ["monthly", "each month"]];
const ONCE = "This is the only time that it is shown. Keep it where nobody else reads.";

export async function show(page, { signal }) {
  const list = el("div.cards", {});
  const refresh = async () => {
    const keys = (await call("/v1/keys", { signal })).data;
    list.replaceChildren(...(keys.length ? keys.map((key) => card(key, refresh)) : [el("p", {}, "No keys yet.")]));
  };
  const made = settings();
  page.append(
    el("p.lead", {}, "Programs use a key instead of your login. A key asks for inference and reads the account; it never makes keys or moves money out."),
    el("section.card", {}, el("h2", {}, "New key"),
      form("Create key", made.fields, async () => {
        const answer = await call("/v1/keys", { method: "POST", body: made.read(true) });
        made.clear();
        reveal("Your new key", answer.key, ONCE);
        await refresh();
      })),
    el("h2", {}, "Your keys"),
    list,
  );
  await refresh();
}

/** The fields of a key; `read` returns what the API takes, null for what was emptied. */
function settings(key = {}) {
  const name = el("input", { maxlength: "100", autocomplete: "off", value: key.name ?? "" });
  const limit = el("input", { inputmode: "decimal", autocomplete: "off", value: key.limit_usd ?? "" });
  const reset = choice(RESETS, key.limit_reset ?? "none");
  const rpm = el("input", { inputmode: "numeric", autocomplete: "off", value: key.rpm_limit ?? "" });
  const models = el("input", { autocomplete: "off", value: (key.allowed_models ?? []).join(", ") });
  const expires = el("input", { type: "date", value: (key.expires_at ?? "").slice(0, 10) });
  const own = el("input", { type: "checkbox" });
  own.checked = key.self_route_only ?? false;
  const number = (control, what) => {
    const text = control.value.trim();
    if (text === "") return null;
    if (!/^\d+(\.\d{1,6})?$/.test(text)) throw new Error(`${what} must be a number`);
    return Number(text);
  };
  return {
    fields: [
      el("div.grid", {},
        field("Name", name),
        field("Spend limit in $", limit, "Empty: no limit. 0 lets nothing through."),
        field("Limit counts", reset),
        field("Requests per minute", rpm),
        field("Only these models", models, "With commas; empty: all."),
        field("Expires", expires),
      ),
      el("label.check", {}, own, "Only my own machines"),
    ],
    read(fresh) {
      const wanted = {
        name: name.value.trim(),
        limit_usd: number(limit, "the limit"),
        limit_reset: reset.value,
        rpm_limit: number(rpm, "requests per minute"),
        allowed_models: models.value.split(",").map((one) => one.trim()).filter(Boolean),
        expires_at: expires.value ? `${expires.value}T23:59:59Z` : null,
        self_route_only: own.checked,
      };
      if (!wanted.allowed_models.length) wanted.allowed_models = null;
      return fresh ? Object.fromEntries(Object.entries(wanted).filter(([, value]) => value !== null && value !== "")) : wanted;
    },
    clear() {
      for (const control of [name, limit, rpm, models, expires]) control.value = "";
    },
  };
}

function card(key, refresh) {
  const path = `/v1/keys/${encodeURIComponent(key.id)}`;
  const seat = el("div", {});
  const edit = () => {
    const changed = settings(key);
    seat.replaceChildren(form("Save", changed.fields, async () => {
      await call(path, { method: "PATCH", body: changed.read(false) });
      say("Saved.");
      await refresh();
    }));
  };
  return el("section.card.key", {},
    el("h3", {}, key.name || "Unnamed key", key.disabled ? el("span.badge.open", {}, "off") : null),
    facts([
      ["Key", el("code", {}, key.label)],
      ["Spent", `$${key.usage_usd}`],
      ["Limit", key.limit_usd === undefined ? "none" : `$${key.limit_usd} ${RESETS.find(([name]) => name === key.limit_reset)?.[1] ?? ""}, $${key.remaining_usd} left`],
      key.rpm_limit !== undefined && ["Rate", `${key.rpm_limit} requests per minute`],
      key.allowed_models && ["Models", key.allowed_models.join(", ")],
      key.expires_at && ["Expires", moment(key.expires_at)],
      ["Last used", ago(key.last_used_at)],
      key.self_route_only && ["Machines", "only my own"],
    ]),
    el("div.row", {},
      el("button", { type: "button", onclick: edit }, "Change"),
      action("New secret", async () => {
        if (!(await confirmed("The old secret stops working at once. Programs that use it need the new one.", "Make a new secret"))) return;
        const answer = await call(`${path}/rotate`, { method: "POST" });
        reveal("The key's new secret", answer.key, ONCE);
        await refresh();
      }),
      action(key.disabled ? "Switch on" : "Switch off", async () => {
        await call(path, { method: "PATCH", body: { disabled: !key.disabled } });
        await refresh();
      }),
      action("Revoke", async () => {
        if (!(await confirmed(`Revoke “${key.name || key.label}”? Programs that use it stop at once, and it cannot be undone.`, "Revoke"))) return;
        await call(path, { method: "DELETE" });
        say("Revoked.");
        await refresh();
      }, { class: "danger" }),
    ),
    seat,
  );
}
