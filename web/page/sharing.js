// sharing.js - pictures of which query heads read which keys and values, and of the latent of MLA.
import { ROPE } from "./draws.js";

const SVG = "http://www.w3.org/2000/svg";

function draw(name, attributes, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const label = (x, y, text, anchor = "middle") =>
  draw("text", { x, y, "text-anchor": anchor }, text);
const box = (x, y, width, text, on) =>
  draw(
    "g",
    {},
    draw("rect", { x: x - width / 2, y, width, height: 28, rx: 4, class: on ? "box on" : "box" }),
    label(x, y + 19, text),
  );
const wire = (x1, y1, x2, y2, on) =>
  draw("path", {
    d: `M${x1},${y1} C${x1},${(y1 + y2) / 2} ${x2},${(y1 + y2) / 2} ${x2},${y2}`,
    class: on ? "wire on" : "wire",
  });

/** Query heads above, what they read below. */
export function sharingOf(state) {
  const { pHeads: heads, head } = state,
    step = 62,
    width = Math.max(heads * step, 480),
    mla = state.sharing === "MLA";
  const groups = { MHA: heads, GQA: state.pGroups, MQA: 1, MLA: 1 }[state.sharing];
  const xOf = (i, n) => (width * (i + 0.5)) / n;
  const wires = [],
    boxes = [];
  for (let h = 0; h < heads; h++) {
    const group = Math.floor(h / (heads / groups));
    wires.push(wire(xOf(h, heads), 38, xOf(group, groups), 96, h === head));
    boxes.push(box(xOf(h, heads), 10, 44, `q${h}`, h === head));
  }
  const below = mla
    ? [box(width / 2, 96, 300, `latent ${state.pLatent} + rotary key ${ROPE}, cached`, true)]
    : Array.from({ length: groups }, (_, g) =>
        box(xOf(g, groups), 96, 52, `k${g} v${g}`, g === Math.floor(head / (heads / groups))),
      );
  const words = wordsOf(state, groups);
  const svg = draw(
    "svg",
    { viewBox: `0 0 ${width} ${mla ? 240 : 132}`, width, role: "img", "aria-label": words },
    ...wires,
    ...boxes,
    ...below,
  );
  if (mla) svg.append(...latent(width));
  const text = document.createElement("p");
  text.textContent = words;
  return [svg, text];
}

/** The picture in words, and what a token keeps. */
function wordsOf(state, groups) {
  const { pHeads: heads, pDim: dim, pLatent: latent } = state,
    full = 2 * heads * dim;
  if (state.sharing === "MLA")
    return (
      `${heads} query heads read one latent. It is key (all ${latent + ROPE} channels) and value ` +
      `(the first ${latent}): a token keeps ${latent + ROPE} numbers; MHA with heads of ${dim} ` +
      `would keep ${full}.`
    );
  const beside = groups === heads ? "as MHA does" : `MHA keeps ${full}`;
  return (
    `${heads} query heads read ${groups} of keys and values: a token keeps 2 x ${groups} x ${dim} ` +
    `= ${2 * groups * dim} numbers, ${beside}. Query head h reads h / ${heads / groups}, rounded down.`
  );
}

/** Where the latent comes from, and what absorbing makes of the matrices behind it. */
function latent(width) {
  const middle = width / 2;
  return [
    wire(middle, 172, middle, 124, false),
    box(middle, 172, 240, "hidden state x W_DKV and W_KR", false),
    label(middle, 226, "absorbed: W_UK goes into q, W_UV behind o; no head's k or v is made"),
  ];
}
