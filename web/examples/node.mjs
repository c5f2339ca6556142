// Attention of two query heads over one key/value head, and what a model's cache costs.
//   node node.mjs
import { load } from "qkv";

const qkv = await load();
const headDim = 64,
  queries = 3,
  keys = 5;
const numbers = (n) => Float32Array.from({ length: n }, (_, i) => Math.sin(i));

const { o, lse, kernel } = qkv.attention(
  numbers(2 * queries * headDim),
  numbers(keys * headDim),
  numbers(keys * headDim),
  { heads: 2, kvHeads: 1, headDim, causal: true, lse: true },
);
console.log(`${o.length} numbers by ${kernel}; lse of the first query ${lse[0].toFixed(4)}`);

const { cache } = qkv.size(null, {
  model: { layers: 80, dModel: 8192, heads: 64, kvHeads: 8 },
  context: 64000,
}).models[0];
console.log(`80 layers of GQA-8 at 64000 tokens keep ${cache.payload} bytes`);
