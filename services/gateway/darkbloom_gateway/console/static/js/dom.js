// Elements out of plain values. Text only ever becomes text: nothing here, or anywhere else in the
// console, parses markup.

const SVG = "http://www.w3.org/2000/svg";

/**
 * Makes an element.
 * @param {string} tag such as `p` or `p.quiet.small`
 * @param {object} [traits] attributes; `on…` are listeners; true sets an empty attribute, null leaves out
 * @param {...(Node|string|number|null|Array)} children texts stay texts
 */
export function el(tag, traits = {}, ...children) {
  return fill(document.createElement(tag.split(".")[0]), tag, traits, children);
}

/** Makes an element of a drawing; as `el`. */
export function svg(tag, traits = {}, ...children) {
  return fill(document.createElementNS(SVG, tag.split(".")[0]), tag, traits, children);
}

function fill(made, tag, traits, children) {
  const classes = tag.split(".").slice(1).join(" ");
  if (classes) made.setAttribute("class", classes);
  for (const [name, value] of Object.entries(traits)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "value") made.value = value;
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** Says something to everybody, screen readers included, for a few seconds. */
export function say(text) {
  const place = document.getElementById("status");
  place.textContent = text;
  place.className = "toast";
  clearTimeout(say.timer);
  say.timer = setTimeout(() => (place.className = "hidden"), 6000);
}

/** A label with its control; `hint` explains it. */
export function field(label, control, hint) {
  field.count = (field.count ?? 0) + 1;
  control.id ||= `field-${field.count}`;
  if (hint) control.setAttribute("aria-describedby", `${control.id}-hint`);
  return el(
    "div.field",
    {},
    el("label", { for: control.id }, label),
    control,
    hint ? el("p.hint", { id: `${control.id}-hint` }, hint) : null,
  );
}

/** A choice out of [value, text] pairs. */
export function choice(pairs, chosen, traits = {}) {
  const made = el("select", traits, pairs.map(([value, text]) => el("option", { value }, text)));
  if (chosen !== undefined) made.value = chosen;
  return made;
}

/** A table; `head` names columns, numbers are aligned right where a name ends with `#`. */
export function table(caption, head, rows) {
  const right = head.map((name) => name.endsWith("#"));
  const names = head.map((name) => name.replace(/#$/, ""));
  const cell = (value, at) =>
    el(right[at] ? "td.number" : "td", { "data-name": names[at] || null }, value ?? "");
  return el(
    "div.scroll",
    { tabindex: "0", role: "region", "aria-label": caption },
    el(
      "table",
      {},
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, names.map((name, at) => el(right[at] ? "th.number" : "th", { scope: "col" }, name || el("span.unseen", {}, "actions"))))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell)))),
    ),
  );
}

/** Terms and what they are. */
export function facts(pairs) {
  return el("dl.facts", {}, pairs.filter(Boolean).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

/** A button whose press is awaited; what goes wrong is shown beside it. */
export function action(label, work, traits = {}) {
  const fault = el("p.fault", { role: "alert" });
  const button = el("button", {
    type: "button",
    ...traits,
    onclick: async () => {
      fault.textContent = "";
      button.disabled = true;
      try {
        await work();
      } catch (error) {
        fault.textContent = error.message;
      } finally {
        button.disabled = false;
      }
    },
  }, label);
  return el("span.action", {}, button, fault);
}

/** A form whose sending is awaited; what goes wrong is shown in it. */
export function form(label, fields, work, traits = {}) {
  const fault = el("p.fault", { role: "alert" });
  const button = el("button.primary", { type: "submit" }, label);
  return el(
    "form",
    {
      ...traits,
      onsubmit: async (event) => {
        event.preventDefault();
        fault.textContent = "";
        button.disabled = true;
        try {
          await work();
        } catch (error) {
          fault.textContent = error.message;
        } finally {
          button.disabled = false;
        }
      },
    },
    fields,
    button,
    fault,
  );
}

/** Asks before something that cannot be undone; true where the answer is yes. */
export function confirmed(question, verb) {
  return new Promise((done) => {
    const dialog = el(
      "dialog",
      { "aria-labelledby": "question", onclose: () => { done(dialog.returnValue === "yes"); dialog.remove(); } },
      el("p", { id: "question" }, question),
      el("div.row", {},
        el("button.danger", { type: "button", onclick: () => dialog.close("yes") }, verb),
        el("button", { type: "button", onclick: () => dialog.close("no") }, "Keep it"),
      ),
    );
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Shows a secret once. */
export function reveal(title, secret, note) {
  const dialog = el(
    "dialog",
    { "aria-labelledby": "secret-title", onclose: () => dialog.remove() },
    el("h2", { id: "secret-title" }, title),
    el("p", {}, note),
    el("p.secret", {}, el("code", {}, secret)),
    el("div.row", {},
      el("button.primary", { type: "button", onclick: async () => { await navigator.clipboard.writeText(secret); say("Copied."); } }, "Copy"),
      el("button", { type: "button", onclick: () => dialog.close() }, "Done"),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
}
