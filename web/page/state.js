// state.js - everything that can be set, kept in the address behind "#".

/** Defaults; what equals them is not written.  The type of a default is the type of the field. */
export const defaults = {
  tab: "size",
  // the model
  source: "preset",
  preset: "llama-3.1-8b",
  config: "",
  layers: 32,
  dModel: 4096,
  heads: 32,
  kvHeads: 8,
  headDim: 128,
  latent: 512,
  ropeDim: 64,
  mla: false,
  window: 0,
  fullEvery: 0,
  // its use
  context: 32768,
  batch: 1,
  kv: "bf16",
  weightBits: "auto",
  variant: "as it is",
  groups: 8,
  latentWidth: 512,
  memory: 64,
  machine: "epyc-9654",
  ranks: 1,
  // the playground
  text: "the cat sat on the mat because it was tired",
  sharing: "GQA",
  pHeads: 4,
  pGroups: 2,
  pDim: 16,
  pLatent: 24,
  head: 0,
  queries: 9,
  scaled: true,
  causal: "inclusive",
  align: "bottom-right",
  pWindow: 0,
  sink: false,
  softcap: 0,
  seed: 1,
};

function parse(hash) {
  const state = { ...defaults };
  for (const [key, text] of new URLSearchParams(hash.replace(/^#/, ""))) {
    if (!(key in defaults)) continue;
    const type = typeof defaults[key];
    if (type === "string") state[key] = text;
    else if (type === "boolean") state[key] = text === "true";
    else if (text.trim() !== "" && Number.isFinite(Number(text))) state[key] = Number(text);
  }
  return state;
}

export function hashOf(state) {
  const entries = Object.entries(state).filter(([key, value]) => value !== defaults[key]);
  return entries.length ? `#${new URLSearchParams(entries)}` : "";
}

/** The state, its listeners and the address. */
export class Store {
  constructor() {
    this.state = parse(location.hash);
    this.listeners = [];
    addEventListener("hashchange", () => {
      this.state = parse(location.hash);
      this.tell();
    });
  }

  subscribe(listener) {
    this.listeners.push(listener);
  }

  set(changes) {
    Object.assign(this.state, changes);
    history.replaceState(null, "", hashOf(this.state) || location.pathname + location.search);
    this.tell();
  }

  tell() {
    for (const listener of this.listeners) listener(this.state);
  }
}
