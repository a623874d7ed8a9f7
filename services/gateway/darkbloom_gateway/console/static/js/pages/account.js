// The person, the name on boards, one's data, the end.

import { call, reach } from "../api.js";
import { action, choice, confirmed, el, facts, field, form, say } from "../dom.js";
import { moment } from "../format.js";
import { session } from "../session.js";

export async function show(page, { signal, go }) {
  const [me, name] = await Promise.all([call("/v1/me", { signal }), call("/v1/me/public-name", { signal })]);
  page.append(
    el("section.card", {}, el("h2", {}, "You"), facts([["E-mail", me.email || "not said"], ["Account", el("code", {}, me.account_id)], me.role && ["Role", me.role], ["Since", moment(me.created_at)]])),
    publicName(name),
    el("section.card", {}, el("h2", {}, "Your data"),
      el("p", {}, "Profile, keys without secrets, usage, every movement, earnings and withdrawals, in one file. Prompts and answers are in nobody's books."),
      action("Save it", async () => save(await (await reach("/v1/me/export", { patience: 300_000 })).blob()))),
    el("section.card", {}, el("h2", {}, "Close the account"),
      el("p", {}, "Every key, login and machine token ends at once. Withdraw what you have earned first."),
      action("Close it", async () => {
        if (!(await confirmed("Close this account? Nothing of it works afterwards.", "Close it"))) return;
        await call("/v1/me", { method: "DELETE" });
        session.end();
        await go("/console/");
      }, { class: "danger" })),
  );
}

function publicName(found) {
  const kind = choice([["pseudonym", "a name that means nothing"], ["chosen", "a name of my own"], ["hidden", "not at all"]], found.choice);
  const own = el("input", { maxlength: "32", autocomplete: "off", value: found.choice === "chosen" ? found.name : "" });
  const shown = el("p", {}, found.name ? `Shown as “${found.name}”.` : "Not shown.");
  return el("section.card", {}, el("h2", {}, "On the leaderboard"), shown,
    form("Save", [field("Appear as", kind), field("Name of my own", own)], async () => {
      const done = await call("/v1/me/public-name", { method: "PUT", body: kind.value === "chosen" ? { choice: kind.value, name: own.value.trim() } : { choice: kind.value } });
      shown.textContent = done.name ? `Shown as “${done.name}”.` : "Not shown.";
      say("Saved.");
    }));
}

function save(blob) {
  const url = URL.createObjectURL(blob);
  el("a", { href: url, download: "darkbloom-export.zip" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
