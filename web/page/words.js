// words.js - numbers for people; exact ones keep all their digits.

const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"];

export const exact = (n) => n.toLocaleString("en");

/** 20971520000 as "19.531 GiB". */
export function bytes(n) {
  let x = Number(n),
    unit = 0;
  while (x >= 1024 && unit < units.length - 1) {
    x /= 1024;
    unit++;
  }
  return `${unit === 0 ? exact(x) : x.toFixed(x >= 1000 ? 1 : 3)} ${units[unit]}`;
}

/** 1.5e12 as "1.500 T". */
export function metric(n) {
  const x = Number(n);
  for (const [unit, size] of [
    ["P", 1e15],
    ["T", 1e12],
    ["G", 1e9],
    ["M", 1e6],
    ["k", 1e3],
  ])
    if (Math.abs(x) >= size) return `${(x / size).toPrecision(4)} ${unit}`;
  return `${Number(x.toPrecision(4))} `;
}

export function seconds(x) {
  for (const [unit, size] of [
    ["s", 1],
    ["ms", 1e-3],
    ["us", 1e-6],
  ])
    if (x >= size) return `${(x / size).toPrecision(3)} ${unit}`;
  return `${(x / 1e-9).toPrecision(3)} ns`;
}
