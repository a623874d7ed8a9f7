// Bars over days, drawn as SVG. The numbers are in a table beside it, so the drawing is decoration
// for those who cannot see it.

import { svg } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM, TOP] = [640, 200, 52, 22, 10];

/**
 * @param {string} title says what is drawn
 * @param {{name: string, value: number}[]} bars
 * @param {(value: number) => string} label of the scale
 */
export function barChart(title, bars, label) {
  const most = Math.max(...bars.map((bar) => bar.value), 0);
  const top = ceiling(most);
  const inner = [WIDTH - LEFT, HEIGHT - BOTTOM - TOP];
  const step = inner[0] / Math.max(bars.length, 1);
  const height = (value) => (top ? (value / top) * inner[1] : 0);
  const every = Math.ceil(bars.length / 6);
  const lines = [0, 0.5, 1].map((part) => {
    const y = HEIGHT - BOTTOM - part * inner[1];
    return [svg("line", { x1: LEFT, x2: WIDTH, y1: y, y2: y }), svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, top || part === 0 ? label(top * part) : "")];
  });
  const columns = bars.map((bar, at) => {
    const size = Math.max(height(bar.value), bar.value ? 2 : 0);
    const x = LEFT + at * step;
    return [
      svg("rect", { x: x + step * 0.15, y: HEIGHT - BOTTOM - size, width: step * 0.7, height: size, rx: 2 }, svg("title", {}, `${bar.name}: ${label(bar.value)}`)),
      at % every === 0 ? svg("text", { x: x + step / 2, y: HEIGHT - 5, "text-anchor": "middle" }, bar.name.slice(5) || bar.name) : null,
    ];
  });
  return svg("svg.chart", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}. The table has the numbers.` }, lines, columns);
}

/** The next number that is easy to read: 1, 2 or 5 with zeros. */
function ceiling(value) {
  if (value <= 0) return 0;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * size >= value) * size;
}
