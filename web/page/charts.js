// charts.js - the two log-log charts, drawn by uPlot in the colours of the page.
import uPlot from "uplot";
import { bytes, metric } from "./words.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const powerOfTwo = (x) =>
  x >= 2 ** 20 ? `${x / 2 ** 20}M` : x >= 1024 ? `${x / 1024}k` : String(x);

/** A chart that follows the width of its place and the colours of the scheme. */
export class Chart {
  constructor(place, label) {
    this.place = place;
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", label);
    new ResizeObserver(() => this.draw()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw(true));
  }

  show(make) {
    this.make = make;
    this.draw(true);
  }

  draw(anew = false) {
    const width = Math.floor(this.place.clientWidth);
    if (!this.make || width === 0) return; // on a hidden tab
    const height = Math.max(260, Math.min(400, Math.round(width * 0.5)));
    if (this.plot && !anew) {
      if (this.plot.width !== width) this.plot.setSize({ width, height });
      return;
    }
    this.plot?.destroy();
    const { options, data } = this.make();
    this.plot = new uPlot({ width, height, ...options }, data, this.place);
  }
}

/** Powers of eight: 1 MiB, 8 MiB, 64 MiB ... */
const byEights = (plot, index, low, high) => {
  const powers = [];
  for (let k = 3 * Math.ceil(Math.log2(low) / 3); k <= Math.log2(high); k += 3) powers.push(2 ** k);
  return powers;
};
const axis = (label, values, size) => ({
  label,
  values,
  size,
  labelSize: 24,
  stroke: colour("--ink"),
  grid: { stroke: colour("--line"), width: 1 },
  ticks: { stroke: colour("--line"), width: 1 },
  font: "12px system-ui",
  labelFont: "13px system-ui",
});
const ticks = (format) => (plot, splits) =>
  splits.map((x) => (x === null ? null : String(format(x)).replace(/\.0+ /, " ")));

/** Bytes over contexts, a line a variant, and the memory that is left for the cache. */
export function curvesOf(contexts, variants, memory) {
  const lines = variants.map(({ name, payload }, i) => ({
    label: name,
    stroke: colour(`--c${i}`),
    width: 2,
    value: (plot, y) => (y === null ? "" : bytes(y)),
  }));
  if (memory > 0)
    lines.push({
      label: "memory for the cache",
      stroke: colour("--ink"),
      width: 1,
      dash: [6, 4],
      value: (plot, y) => (y === null ? "" : bytes(y)),
    });
  const data = [contexts, ...variants.map((v) => v.payload)];
  if (memory > 0) data.push(contexts.map(() => memory));
  return {
    data,
    options: {
      scales: { x: { time: false, distr: 3, log: 2 }, y: { distr: 3, log: 2 } },
      axes: [
        axis("context, tokens", ticks(powerOfTwo), 36),
        {
          ...axis(
            "keys and values",
            ticks((y) => bytes(y)),
            70,
          ),
          splits: byEights,
          filter: (plot, splits) => splits,
        },
      ],
      series: [
        { label: "context", value: (plot, x) => (x === null ? "" : powerOfTwo(x)) },
        ...lines,
      ],
      cursor: { drag: { x: false, y: false } },
    },
  };
}

/** The roofs of a machine and points {name, intensity, rate}. */
export function roofOf(machine, narrow, points) {
  const [, peak] = narrow ? machine.flops_16 : machine.flops_f32,
    [, rate] = machine.bytes_per_second;
  const ridge = peak / rate;
  const from = Math.min(0.25, ...points.map((p) => p.intensity / 2));
  const to = Math.max(4 * ridge, ...points.map((p) => p.intensity * 2));
  const xs = [...new Set([from, ridge, to, ...points.map((p) => p.intensity)])].sort(
    (a, b) => a - b,
  );
  const roof = xs.map((x) => Math.min(peak, x * rate));
  const dots = points.map((p, i) => ({
    label: p.name,
    stroke: colour(`--c${i + 1}`),
    paths: () => null,
    value: (plot, y) => (y === null ? "" : `${metric(y)}FLOP/s`),
    points: { show: true, size: 11, fill: colour(`--c${i + 1}`) },
  }));
  return {
    data: [xs, roof, ...points.map((p) => xs.map((x) => (x === p.intensity ? p.rate : null)))],
    options: {
      scales: { x: { time: false, distr: 3, log: 10 }, y: { distr: 3, log: 10 } },
      axes: [
        axis(
          "FLOPs a byte",
          ticks((x) => String(x)),
          36,
        ),
        axis(
          "FLOP/s",
          ticks((y) => metric(y)),
          62,
        ),
      ],
      series: [
        { label: "FLOPs a byte", value: (plot, x) => (x === null ? "" : x.toPrecision(3)) },
        {
          label: `${machine.name} at most`,
          stroke: colour("--c0"),
          width: 2,
          value: (plot, y) => (y === null ? "" : `${metric(y)}FLOP/s`),
        },
        ...dots,
      ],
      cursor: { drag: { x: false, y: false } },
    },
  };
}
