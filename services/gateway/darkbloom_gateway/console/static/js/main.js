// The frame: which page, who is signed in, light or dark.

import { action, el, say } from "./dom.js";
import { session } from "./session.js";

const BASE = "/console/";
// name: [title, needs a login, in the menu]
const PAGES = {
  "": ["Darkbloom", false, null],
  chat: ["Chat", true, "Chat"],
  keys: ["API keys", true, "Keys"],
  money: ["Balance", true, "Balance"],
  usage: ["Usage", true, "Usage"],
  machines: ["Machines", true, "Machines"],
  earnings: ["Earnings", true, "Earnings"],
  network: ["Network", false, "Network"],
  account: ["Account", true, "Account"],
  link: ["Link a machine", true, null],
  callback: ["Signing in", false, null],
};
const main = document.getElementById("main");
let leaving = new AbortController();

/** Shows the page that the address names. */
async function show(focus) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  const name = location.pathname.slice(BASE.length);
  const [title, guarded] = PAGES[name] ?? ["Not found", false];
  document.title = name === "" ? "Darkbloom" : `${title} · Darkbloom`;
  frame(name);
  const heading = el("h1", { tabindex: "-1" }, title);
  const body = el("div.page", { "data-page": name || "home" });
  main.replaceChildren(heading, body);
  if (focus) heading.focus();
  try {
    if (!(name in PAGES)) body.append(el("p", {}, "There is no such page."));
    else if (name === "callback") go(await session.finish(new URLSearchParams(location.search)), true);
    else if (guarded && !session.token()) body.append(signInCard("Sign in to see this page."));
    else {
      body.setAttribute("aria-busy", "true");
      const page = await import(`./pages/${name || "home"}.js`);
      if (signal.aborted) return;
      await page.show(body, { signal, go, query: new URLSearchParams(location.search), heading });
      body.removeAttribute("aria-busy");
    }
  } catch (error) {
    if (signal.aborted) return;
    body.removeAttribute("aria-busy");
    body.append(el("p.fault", { role: "alert" }, error.message));
  }
}

/** Goes to a page of the console. */
function go(path, replace = false) {
  const target = new URL(path, location.origin);
  const ours = target.origin === location.origin && target.pathname.startsWith(BASE);
  history[replace ? "replaceState" : "pushState"](null, "", ours ? target.pathname + target.search : BASE);
  return show(true);
}

export function signInCard(why) {
  if (!session.config.sign_in) {
    return el("section.card", {}, el("p", {}, "No issuer is set up on this gateway, so nobody can sign in here. API keys work as always."));
  }
  return el("section.card", {}, el("p", {}, why), action("Sign in", () => session.begin(location.pathname + location.search), { class: "primary" }));
}

function frame(current) {
  const link = (name, text) => el("a", { href: BASE + name, "aria-current": name === current ? "page" : null }, text);
  const known = session.token() !== null;
  const menu = el("nav", { id: "menu", "aria-label": "Pages" }, Object.entries(PAGES).filter(([, page]) => page[2] && (known || !page[1])).map(([name, page]) => link(name, page[2])));
  const open = el("button.menu", { type: "button", "aria-expanded": "false", "aria-controls": "menu", onclick: () => open.setAttribute("aria-expanded", String(menu.classList.toggle("open"))) }, "Menu");
  const who = known
    ? [el("span.who", {}, session.name()), el("button", { type: "button", onclick: () => { session.end(); go(BASE); say("Signed out."); } }, "Sign out")]
    : session.config.sign_in
      ? [el("button.primary", { type: "button", onclick: () => session.begin(current === "callback" ? BASE : location.pathname + location.search) }, "Sign in")]
      : [];
  document.getElementById("top").replaceChildren(
    ...(session.config.environment === "development" ? [el("p.banner", {}, "Development: answers are unattested, and nothing here is real money.")] : []),
    el("div.bar", {}, el("a.brand", { href: BASE }, "Darkbloom"), open, menu, el("div.person", {}, who, theme())),
  );
}

function theme() {
  const now = document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const other = now === "dark" ? "light" : "dark";
  return el("button.icon", { type: "button", "aria-label": `Switch to ${other} colours`, title: `Switch to ${other} colours`, onclick: (event) => {
    localStorage.setItem("darkbloom.theme", other);
    document.documentElement.dataset.theme = other;
    event.currentTarget.replaceWith(theme());
  } }, now === "dark" ? "☀" : "☾");
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || link.target) return;
  if (link.origin !== location.origin || !link.pathname.startsWith(BASE)) return;
  if (link.hash && link.pathname === location.pathname) return;
  event.preventDefault();
  go(link.pathname + link.search);
});
addEventListener("popstate", () => show(true));
session.addEventListener("change", () => frame(location.pathname.slice(BASE.length)));

const kept = localStorage.getItem("darkbloom.theme");
if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
try {
  await session.load();
} catch (error) {
  main.append(el("p.fault", { role: "alert" }, error.message));
}
await show(false);
