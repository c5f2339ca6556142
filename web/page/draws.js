// draws.js - queries, keys and values of words: independent N(0, 1) numbers that a word and a seed decide.

function seedOf(text) {
  let hash = 2166136261; // FNV-1a
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 16777619);
  return hash >>> 0;
}

/** n numbers of N(0, 1), the same for the same name. */
function normals(name, n) {
  let state = seedOf(name);
  const next = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 4294967296;
  };
  return Float32Array.from(
    { length: n },
    () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
  );
}

/** [heads][words][dim] of one role. */
function rows(role, words, heads, dim, seed) {
  const all = new Float32Array(heads * words.length * dim);
  for (let h = 0; h < heads; h++)
    words.forEach((word, t) =>
      all.set(normals(`${seed} ${role} ${h} ${word}`, dim), (h * words.length + t) * dim),
    );
  return all;
}

export const MOST_WORDS = 16;
export const wordsOf = (text) => text.trim().split(/\s+/).filter(Boolean).slice(0, MOST_WORDS);
export const ROPE = 8; // rotary channels beside the latent of MLA

/** Tensors and sizes of the state: { q, k, v, sizes }. */
export function problemOf(state, words) {
  const asked = words.slice(-Math.min(Math.max(1, state.queries), words.length));
  const heads = state.pHeads,
    seed = state.seed;
  if (state.sharing === "MLA") {
    const headDim = state.pLatent + ROPE; // absorbed: queries meet the latent itself
    return {
      asked,
      q: rows("q", asked, heads, headDim, seed),
      k: rows("latent", words, 1, headDim, seed),
      v: null,
      sizes: { heads, kvHeads: 1, headDim, headDimV: state.pLatent, valuesInKeys: true },
    };
  }
  const kvHeads = { MHA: heads, GQA: state.pGroups, MQA: 1 }[state.sharing] ?? heads;
  const headDim = state.pDim;
  return {
    asked,
    q: rows("q", asked, heads, headDim, seed),
    k: rows("k", words, kvHeads, headDim, seed),
    v: rows("v", words, kvHeads, headDim, seed),
    sizes: { heads, kvHeads, headDim, headDimV: headDim },
  };
}
