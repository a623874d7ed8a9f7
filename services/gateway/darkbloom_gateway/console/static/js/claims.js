// A list of checked claims, as people see it.

import { el } from "./dom.js";

const MARKS = new Map([[true, ["✓", "holds", "good"]], [false, ["✗", "fails", "bad"]], [null, ["?", "not checked", "open"]]]);

/** The claims, and one line that sums them up. */
export function claimList(claims) {
  const failed = claims.filter((one) => one.holds === false).length;
  const held = claims.filter((one) => one.holds === true).length;
  const sum = failed ? `${failed} of ${claims.length} checks failed.` : `${held} checks hold, none fails; ${claims.length - held} could not be checked here.`;
  return el(
    "div.claims",
    {},
    el(failed ? "p.verdict.bad" : "p.verdict", { role: "status" }, sum, ` Checked in this browser at ${new Date().toLocaleTimeString()}.`),
    el("ul", {}, claims.map(({ name, holds, detail, backedBy }) => {
      const [mark, word, kind] = MARKS.get(holds ?? null);
      return el(`li.${kind}`, {}, el("span.mark", { "aria-hidden": "true" }, mark), el("span", {}, el("strong", {}, name), el("span.unseen", {}, `: ${word}. `), el("span.detail", {}, `${detail} — backed by ${backedBy}`)));
    })),
  );
}
