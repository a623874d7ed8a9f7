// The playground. Conversations live in this tab's memory and nowhere else.

import { call } from "../api.js";
import { ask } from "../ask.js";
import { claimList } from "../claims.js";
import { askEndToEnd } from "../endtoend.js";
import { action, choice, el, facts, field, say } from "../dom.js";
import { checkReceipt, levelOf, publishedKeys } from "../verify.js";

const MODES = [
  ["open", "Over TLS"],
  ["sealed", "Sealed to the gateway"],
  ["end", "End to end"],
];
const HINTS = {
  open: "TLS protects it on the way; the gateway reads it in memory and seals it to the machine that answers.",
  sealed: "Sealed in this page: no proxy on the way can read it. The gateway opens it in memory.",
  end: "Sealed in this page to the machine that answers: the gateway sees the model's name, sizes and counts. This page's code comes from the gateway, so you trust what it served; the Python client does not.",
};
const SENT = { open: "over TLS", sealed: "sealed to the gateway", end: "sealed to the machine itself" };
const turns = [];
let chosen = { model: null, mode: "open", own: false };

export async function show(page, { signal }) {
  const models = (await call("/v1/models", { signal })).data;
  const model = choice(models.map((row) => [row.id, row.name || row.id]), chosen.model ?? undefined);
  if (!model.value && models.length) model.value = models[0].id;
  const hint = el("p.hint", {}, HINTS[chosen.mode]);
  const mode = choice(MODES, chosen.mode, { onchange: () => { hint.textContent = HINTS[mode.value]; keep(); } });
  const own = el("input", { type: "checkbox", onchange: keep });
  own.checked = chosen.own;
  model.addEventListener("change", keep);
  function keep() {
    chosen = { model: model.value, mode: mode.value, own: own.checked };
  }

  const log = el("ol.talk", { "aria-label": "Conversation" }, turns.map((turn) => turn.node));
  const text = el("textarea", { rows: "3", required: true, placeholder: "Ask something", onkeydown: (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      sender.requestSubmit();
    }
  } });
  const stop = el("button.danger", { type: "button", hidden: true }, "Stop");
  const send = el("button.primary", { type: "submit" }, "Send");
  const sender = el("form.composer", { onsubmit: async (event) => {
    event.preventDefault();
    if (!stop.hidden || !text.value.trim()) return;
    const halt = new AbortController();
    stop.onclick = () => halt.abort();
    [stop.hidden, send.hidden] = [false, true];
    await exchange(log, text.value, { model: model.value, mode: mode.value, route: own.checked ? "prefer" : null, signal: halt.signal }, () => (text.value = ""));
    [stop.hidden, send.hidden] = [true, false];
    text.focus();
  } },
    field("Message", text),
    el("div.row", {}, send, stop, el("button", { type: "button", onclick: () => { turns.length = 0; log.replaceChildren(); say("A new conversation."); } }, "New conversation")),
  );
  page.append(
    el("div.controls", {}, field("Model", model), field("Protection", mode), el("label.check", {}, own, "My own machines first")),
    hint,
    log,
    sender,
  );
  if (!models.length) page.prepend(el("p", {}, "No model is being served."));
}

async function exchange(log, prompt, wanted, taken) {
  const history = turns.filter((turn) => !turn.failed).map(({ role, content }) => ({ role, content }));
  const mine = turn(log, "user", prompt);
  const answer = turn(log, "assistant", "");
  answer.node.setAttribute("aria-busy", "true");
  taken();
  try {
    const result = await (wanted.mode === "end" ? askEndToEnd : ask)({ ...wanted, sealed: wanted.mode === "sealed", body: { model: wanted.model, messages: [...history, { role: "user", content: prompt }] } }, (part) => answer.add(part));
    answer.finish(result, wanted);
  } catch (error) {
    if (wanted.signal.aborted) answer.note("Stopped. What had come was paid for.");
    else {
      [mine.failed, answer.failed] = [true, true];
      answer.note(error.message, true);
    }
  } finally {
    answer.node.removeAttribute("aria-busy");
  }
}

function turn(log, role, content) {
  const words = el("div.words", {}, content);
  const thoughts = el("details.thoughts", { hidden: true }, el("summary", {}, "Reasoning"), el("div.words", {}));
  const foot = el("div.foot", {});
  const made = {
    role,
    content,
    failed: false,
    node: el(`li.${role}`, {}, el("p.speaker", {}, role === "user" ? "You" : "Model"), thoughts, words, foot),
    add({ text, reasoning }) {
      if (text) {
        made.content += text;
        words.append(text);
      }
      if (reasoning) {
        thoughts.hidden = false;
        thoughts.lastChild.append(reasoning);
      }
      made.node.scrollIntoView({ block: "nearest" });
    },
    note(message, fault = false) {
      foot.append(el(fault ? "p.fault" : "p.hint", { role: fault ? "alert" : null }, message));
    },
    finish(result, wanted) {
      foot.append(...backing(result, wanted, made.content));
    },
  };
  turns.push(made);
  log.append(made.node);
  made.node.scrollIntoView({ block: "nearest" });
  return made;
}

function backing(result, wanted, content) {
  const [level, source] = levelOf(result, wanted.mode);
  const attested = level === "hardware";
  const seat = el("div", {});
  const badge = el(attested ? "span.badge.good" : "span.badge.open", {}, attested ? "attested hardware" : "unattested machine");
  const check = result.receipt
    ? action("Check the receipt", async () => seat.replaceChildren(claimList(await checkReceipt(result.receipt, await publishedKeys(), result.body, content))))
    : null;
  return [
    badge,
    el("details", {}, el("summary", {}, "Who answered"),
      facts([
        ["Machine", el("code", {}, result.headers.get("x-provider-id") ?? "not named")],
        ["Trust level", `${level}, ${source}`],
        ["Sent", SENT[wanted.mode]],
        result.usage && ["Tokens", `${result.usage.prompt_tokens} in, ${result.usage.completion_tokens} out`],
        ["Attempt", el("code", {}, result.headers.get("x-inference-job-id") ?? "")],
      ]),
      result.before ? el("div", {}, el("h3", {}, "Before anything was sealed"), claimList(result.before)) : null,
      check,
      seat,
    ),
  ];
}
