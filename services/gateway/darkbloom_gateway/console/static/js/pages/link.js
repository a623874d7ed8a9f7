// The page at which `darkbloom login` on a machine points: type its code, see what it is, decide.
//
// A code in the address is not read: whoever sends a link could make its reader approve a stranger's
// machine. The code has to come from the eyes of whoever stands before it.

import { call, query } from "../api.js";
import { action, el, facts, field, form } from "../dom.js";
import { ago } from "../format.js";

export async function show(page, { signal }) {
  const code = el("input.code-entry", { required: true, maxlength: "9", autocomplete: "off", autocapitalize: "characters", spellcheck: "false", placeholder: "XXXX-XXXX" });
  const seat = el("div", { "aria-live": "polite" });
  page.append(
    el("p.lead", {}, "On the machine that shall earn for you, ", el("code", {}, "darkbloom login"), " shows a code."),
    el("section.card", {}, form("Look at it", [field("Code", code, "Type only a code that your own machine shows you, now.")], async () => seat.replaceChildren(await look(spelled(code.value), seat, signal)))),
    seat,
  );
}

/** The code as machines show it, whatever the typing. */
function spelled(text) {
  const plain = text.toUpperCase().replace(/[^A-Z0-9]/g, "");
  if (plain.length !== 8) throw new Error("a code has eight letters and digits");
  return `${plain.slice(0, 4)}-${plain.slice(4)}`;
}

async function look(code, seat, signal) {
  const found = await call(query("/v1/device/code", { user_code: code }), { signal });
  if (found.status !== "pending") return el("section.card", {}, el("p", {}, `This code was decided on before: ${found.status}.`));
  const decide = (approve) => async () => {
    const done = await call("/v1/device/approve", { method: "POST", body: { user_code: code, approve } });
    seat.replaceChildren(el("section.card", { role: "status" }, el("p", {}, `Done: ${done.message}.`), el("p", {}, el("a", { href: "/console/machines" }, "Your machines"))));
  };
  return el("section.card", {},
    el("h2", {}, "Is this your machine?"),
    facts([["Machine", found.machine_name || "gave no name"], ["Code", el("code", {}, code)], ["Asked", ago(found.created_at)]]),
    el("p", {}, "If you approve, it may earn for your account. It cannot spend your money or make keys."),
    el("div.row", {}, action("Approve", decide(true), { class: "primary" }), action("Refuse", decide(false), { class: "danger" })));
}
