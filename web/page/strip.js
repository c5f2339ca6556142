// strip.js - a picture of the layers: one cell each, a letter and a colour a kind.
import { element } from "./controls.js";

function describe(kind) {
  const seen =
    kind.window > 0
      ? `window of ${kind.window}`
      : kind.chunk > 0
        ? `chunks of ${kind.chunk}`
        : "all keys";
  if (kind.kind === "state") return "a state of constant size";
  if (kind.kind === "mla") return `MLA, latent ${kind.latent} + rotary ${kind.rope_dim}, ${seen}`;
  const dims =
    kind.head_dim === kind.head_dim_v ? kind.head_dim : `${kind.head_dim} and ${kind.head_dim_v}`;
  return `${kind.variant}, ${kind.heads} query and ${kind.kv_heads} key/value heads of ${dims}, ${seen}`;
}

export function stripOf(layers) {
  const cells = [],
    counts = layers.kinds.map(() => 0);
  let shared = 0;
  for (let i = 0; 2 * i < layers.map.length; i++) {
    const letter = layers.map[2 * i].toUpperCase(),
      kind = layers.map.charCodeAt(2 * i) - 97;
    const borrows = layers.map[2 * i + 1] === "^";
    counts[kind]++;
    shared += borrows;
    cells.push(
      element(
        "li",
        {
          class: `k${kind % 5}${borrows ? " shared" : ""}`,
          "aria-hidden": "true",
          title: `layer ${i}: ${describe(layers.kinds[kind])}${borrows ? ", the cache of another layer" : ""}`,
        },
        letter,
      ),
    );
  }
  const key = layers.kinds
    .map((kind, i) => [kind, i])
    .filter(([, i]) => counts[i] > 0)
    .map(([kind, i]) =>
      element(
        "li",
        {},
        element("i", { class: `k${i % 5}` }, String.fromCharCode(65 + i)),
        `${counts[i]} ${counts[i] === 1 ? "layer" : "layers"}: ${describe(kind)}`,
      ),
    );
  if (shared > 0)
    key.push(element("li", {}, `${shared} with a dashed edge use the cache of another layer`));
  return [
    element("ol", { class: "strip", "aria-hidden": "true" }, ...cells),
    element("ul", { class: "key" }, ...key),
  ];
}
