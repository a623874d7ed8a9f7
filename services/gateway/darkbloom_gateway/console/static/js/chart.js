// Bars over days, drawn as SVG. The numbers are in a table beside it, so the drawing is decoration
// for those who cannot see it.

import { svg } from "./dom.js";

const [HEIGHT, LEFT, BOTTOM, TOP] = [200, 58, 22, 10];
const narrow = matchMedia("(max-width: 40rem)");

/**
 * @param {string} title says what is drawn
 * @param {{name: string, value: number}[]} bars
 * @param {(value: number) => string} label of the scale
 */
export function barChart(title, bars, label) {
  let drawn = draw(title, bars, label);
  // A telephone is turned round.
  const again = () => {
    if (!drawn.isConnected) {
      narrow.removeEventListener("change", again);
      return;
    }
    const next = draw(title, bars, label);
    drawn.replaceWith(next);
    drawn = next;
  };
  narrow.addEventListener("change", again);
  return drawn;
}

function draw(title, bars, label) {
  // Drawn about as wide as it is shown, so that its letters have the size of letters.
  const width = narrow.matches ? 330 : 640;
  const most = Math.max(...bars.map((bar) => bar.value), 0);
  const top = ceiling(most);
  const inner = [width - LEFT, HEIGHT - BOTTOM - TOP];
  const step = inner[0] / Math.max(bars.length, 1);
  const height = (value) => (top ? (value / top) * inner[1] : 0);
  const every = Math.ceil(bars.length / (narrow.matches ? 4 : 6));
  const lines = [0, 0.5, 1].map((part) => {
    const y = HEIGHT - BOTTOM - part * inner[1];
    return [svg("line", { x1: LEFT, x2: width, y1: y, y2: y }), svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, top || part === 0 ? label(Math.round(top * part)) : "")];
  });
  const columns = bars.map((bar, at) => {
    const size = Math.max(height(bar.value), bar.value ? 2 : 0);
    const x = LEFT + at * step;
    return [
      svg("rect", { x: x + step * 0.15, y: HEIGHT - BOTTOM - size, width: step * 0.7, height: size, rx: 2 }, svg("title", {}, `${bar.name}: ${label(bar.value)}`)),
      at % every === 0 ? svg("text", { x: x + step / 2, y: HEIGHT - 5, "text-anchor": "middle" }, bar.name.replace(/^\d{4}-/, "")) : null,
    ];
  });
  return svg("svg.chart", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${title}. The table has the numbers.` }, lines, columns);
}

/** The next number that is easy to read: 1, 2 or 5 with zeros. */
function ceiling(value) {
  if (value <= 0) return 0;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * size >= value) * size;
}
