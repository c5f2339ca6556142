// attention.js - attention on typed arrays: options become a web_problem (web/src/problem.inc).
import { arrayOf, choice, finite, integer, known, refuse } from "./checks.js";

const TYPES = { f64: 1, f32: 2, f16: 3, bf16: 4 };
const ARRAYS = { f64: Float64Array, f32: Float32Array, f16: Uint16Array, bf16: Uint16Array };
const CAUSAL = new Map([
  [false, 0],
  [true, 1],
  ["strict", 2],
]);
const ALIGN = new Map([
  ["bottom-right", 0],
  ["top-left", 1],
]);
const STAGES = new Map([
  ["scores", 0],
  ["capped", 1],
  ["biased", 2],
  ["weights", 3],
  [true, 3],
]);
const TIERS = new Map([
  ["best", 0x7fffffff],
  ["scalar", 0],
]);
const KNOWN = [
  "batch heads kvHeads headDim headDimV queries keys type layout causal align window",
  "scale softcap mask bias sinks slopes qLens kvLens kvStarts qOffsets lse weights tier",
  "valuesInKeys",
]
  .join(" ")
  .split(" ");

/** The tokens of a tensor, from its length if they are not given. */
function tokens(name, given, array, perToken) {
  const n = given ?? array.length / perToken;
  if (given === undefined && !Number.isInteger(n))
    refuse(
      `${name} follows from ${array.length} elements over ${perToken} a token, and is no integer`,
    );
  return integer(name, n);
}

function sizesOf(q, k, v, o, Type) {
  const batch = integer("batch", o.batch ?? 1);
  const heads = integer("heads", o.heads ?? 1, 1);
  const kvHeads = integer("kvHeads", o.kvHeads ?? heads, 1);
  if (o.headDim === undefined) refuse("headDim is missing: the channels of a head of q and k");
  const headDim = integer("headDim", o.headDim, 1);
  const headDimV = integer("headDimV", o.headDimV ?? headDim, 1);
  arrayOf("q", q, Type);
  arrayOf("k", k, Type);
  const queries = tokens("queries", o.queries, q, Math.max(batch, 1) * heads * headDim);
  const keys = tokens("keys", o.keys, k, Math.max(batch, 1) * kvHeads * headDim);
  arrayOf("q", q, Type, batch * heads * queries * headDim);
  arrayOf("k", k, Type, batch * kvHeads * keys * headDim);
  if (o.valuesInKeys) {
    if (v !== null) refuse("v must be null with valuesInKeys: values are the first channels of k");
    if (headDimV > headDim)
      refuse(`headDimV is ${headDimV}; values in keys have at most ${headDim}`);
  } else {
    arrayOf("v", v, Type, batch * kvHeads * keys * headDimV);
  }
  return { batch, heads, kvHeads, headDim, headDimV, queries, keys };
}

/** Strides over sequences, heads and tokens. */
function strides(layout, heads, tokens, dim) {
  return layout === "bhtd"
    ? [heads * tokens * dim, tokens * dim, dim]
    : [heads * tokens * dim, dim, heads * dim];
}

/** Strides of a mask or bias with all, some or none of the leading dimensions. */
function maskStrides(name, array, s) {
  const plane = s.queries * s.keys;
  const forms = [
    [s.batch * s.heads * plane, s.heads * plane, plane],
    [s.heads * plane, 0, plane],
    [plane, 0, 0],
  ];
  const form = forms.find(([length]) => length === array.length);
  if (!form)
    refuse(
      `${name} has ${array.length} elements; it must have batch x heads x queries x keys, which is ` +
        `${forms[0][0]}, heads x queries x keys (${forms[1][0]}) or queries x keys (${plane})`,
    );
  return { seq: form[1], head: form[2], query: s.keys };
}

function setTensors(p, s, layout, valuesInKeys) {
  const vDim = valuesInKeys ? s.headDim : s.headDimV;
  const all = {
    q: [s.heads, s.queries, s.headDim],
    k: [s.kvHeads, s.keys, s.headDim],
    v: [s.kvHeads, s.keys, vDim],
    o: [s.heads, s.queries, s.headDimV],
  };
  for (const [name, [heads, n, dim]] of Object.entries(all)) {
    const [seq, head, token] = strides(layout, heads, n, dim);
    p[`${name}_seq`] = seq;
    p[`${name}_head`] = head;
    p[`${name}_token`] = token;
  }
}

function setRules(p, o) {
  p.causal = choice("causal", o.causal ?? false, CAUSAL);
  p.align = choice("align", o.align ?? "bottom-right", ALIGN);
  p.cpu_mask = choice("tier", o.tier ?? "best", TIERS);
  if (o.window !== undefined) {
    const [left, right] = Array.isArray(o.window)
      ? o.window
      : refuse("window must be [left, right]");
    p.window_left = left === null ? -1 : integer("window[0]", left);
    p.window_right = right === null ? -1 : integer("window[1]", right);
  }
  if (o.scale !== undefined) p.scale = finite("scale", o.scale);
  if (o.softcap !== undefined) p.softcap = finite("softcap", o.softcap);
  if (o.weights) p.stage = choice("weights", o.weights, STAGES);
}

/** Optional inputs: those of two dimensions, of heads and of sequences. */
function putOptional(module, take, p, o, s, Real, realType) {
  if (o.mask !== undefined) {
    const stride = maskStrides("mask", arrayOf("mask", o.mask, Uint8Array), s);
    Object.assign(p, {
      mask: module.put(take, o.mask),
      mask_seq: stride.seq,
      mask_head: stride.head,
      mask_query: stride.query,
    });
  }
  if (o.bias !== undefined) {
    const stride = maskStrides("bias", arrayOf("bias", o.bias, Real), s);
    Object.assign(p, {
      bias: module.put(take, o.bias),
      bias_type: realType,
      bias_seq: stride.seq,
      bias_head: stride.head,
      bias_query: stride.query,
    });
  }
  for (const name of ["sinks", "slopes"])
    if (o[name] !== undefined) p[name] = module.put(take, arrayOf(name, o[name], Real, s.heads));
  const perSequence = {
    qLens: "q_lens",
    kvLens: "kv_lens",
    kvStarts: "kv_starts",
    qOffsets: "q_offsets",
  };
  for (const [name, field] of Object.entries(perSequence))
    if (o[name] !== undefined)
      p[field] = module.put(take, arrayOf(name, o[name], Int32Array, s.batch));
}

/** The names of the fields, in order. */
function fieldsOf(module) {
  const names = [];
  for (let at; (at = module.exports.web_problem_field(names.length)) !== 0; )
    names.push(module.text(at));
  return names;
}

/** Functions over one module. */
export function attentionOf(module) {
  const fields = fieldsOf(module);

  function read(at) {
    const row = module.view(Float64Array, at, fields.length);
    return Object.fromEntries(fields.map((name, i) => [name, row[i]]));
  }

  function write(at, p) {
    module.view(Float64Array, at, fields.length).set(fields.map((name) => p[name]));
  }

  /** A problem in memory of the scope, and what its results are. */
  function prepare(take, q, k, v, o) {
    known(o, KNOWN);
    const type = o.type ?? (q instanceof Float64Array ? "f64" : "f32");
    const number = choice("type", type, new Map(Object.entries(TYPES)));
    const Type = ARRAYS[type],
      Real = type === "f64" ? Float64Array : Float32Array;
    const layout = choice(
      "layout",
      o.layout ?? "bhtd",
      new Map([
        ["bhtd", "bhtd"],
        ["bthd", "bthd"],
      ]),
    );
    const s = sizesOf(q, k, v, o, Type);
    const at = take(8 * fields.length);
    module.exports.web_problem_defaults(at);
    const p = read(at);
    Object.assign(p, {
      n_seqs: s.batch,
      n_q_heads: s.heads,
      n_kv_heads: s.kvHeads,
      head_dim: s.headDim,
      head_dim_v: s.headDimV,
      q_len: s.queries,
      kv_len: s.keys,
      q_type: number,
      k_type: number,
      v_type: number,
      o_type: number,
    });
    setTensors(p, s, layout, o.valuesInKeys);
    setRules(p, o);
    putOptional(module, take, p, o, s, Real, type === "f64" ? TYPES.f64 : TYPES.f32);
    p.q = module.put(take, q);
    p.k = module.put(take, k);
    p.v = o.valuesInKeys ? p.k : module.put(take, v);
    const rows = s.batch * s.heads * s.queries;
    const want = {
      o: [Type, rows * s.headDimV],
      lse: [Real, o.lse ? rows : 0],
      weights: [Real, o.weights ? rows * s.keys : 0],
    };
    for (const [name, [T, n]] of Object.entries(want))
      p[name] = n > 0 || name === "o" ? take(n * T.BYTES_PER_ELEMENT) : 0;
    write(at, p);
    return { at, p, s, want };
  }

  function attention(q, k, v, options = {}) {
    return module.scope((take) => {
      const { at, p, want } = prepare(take, q, k, v, options);
      module.check(take, (text, bytes) => module.exports.web_attention(at, text, bytes));
      const result = { kernel: module.text(module.exports.web_kernel(at)) };
      for (const [name, [T, n]] of Object.entries(want))
        if (name === "o" || options[name]) result[name] = module.view(T, p[name], n).slice();
      return result;
    });
  }

  function reference(q, k, v, options = {}) {
    return module.scope((take) => {
      const { at, s } = prepare(take, q, k, v, options);
      const rows = s.batch * s.heads * s.queries;
      const counts = {
        o: rows * s.headDimV,
        lse: rows,
        weights: rows * s.keys,
        oBudget: rows * s.headDimV,
        lseBudget: rows,
      };
      const to = Object.fromEntries(Object.entries(counts).map(([name, n]) => [name, take(8 * n)]));
      module.check(take, (text, bytes) =>
        module.exports.web_reference(
          at,
          to.o,
          to.lse,
          to.weights,
          to.oBudget,
          to.lseBudget,
          text,
          bytes,
        ),
      );
      return Object.fromEntries(
        Object.entries(counts).map(([name, n]) => [
          name,
          module.view(Float64Array, to[name], n).slice(),
        ]),
      );
    });
  }

  function visiblePairs(q, k, v, options = {}) {
    return module.scope((take) =>
      module.exports.web_visible_pairs(prepare(take, q, k, v, options).at),
    );
  }

  return { attention, reference, visiblePairs };
}

/** A typed array as another type: Float32Array to the bits of bf16, and so on. */
export function convertOf(module) {
  return function convert(array, from, to) {
    const fromType = choice("from", from, new Map(Object.entries(TYPES)));
    const toType = choice("to", to, new Map(Object.entries(TYPES)));
    arrayOf("array", array, ARRAYS[from]);
    return module.scope((take) => {
      const source = module.put(take, array);
      const target = take(array.length * ARRAYS[to].BYTES_PER_ELEMENT);
      module.exports.web_convert(target, toType, source, fromType, array.length);
      return module.view(ARRAYS[to], target, array.length).slice();
    });
  };
}
