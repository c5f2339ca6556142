// attention.test.mjs - the kernels behind the package against the oracle behind it, within its budget.
import assert from "node:assert/strict";
import { test } from "node:test";
import { load, QkvError } from "./paths.mjs";

const qkv = await load();

/** SplitMix64 in 32-bit steps would do; any generator with a seed does. */
function generator(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let z = Math.imul(state ^ (state >>> 15), 1 | state);
    z = (z + Math.imul(z ^ (z >>> 7), 61 | z)) ^ z;
    return ((z ^ (z >>> 14)) >>> 0) / 4294967296;
  };
  const between = (low, high) => low + Math.floor(next() * (high - low + 1));
  return {
    next,
    between,
    chance: (percent) => next() * 100 < percent,
    normal: () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
  };
}

const arrayTypes = { f64: Float64Array, f32: Float32Array, f16: Uint16Array, bf16: Uint16Array };

function tensor(random, n, type) {
  const numbers = Float32Array.from({ length: n }, random.normal);
  return type === "f32" ? numbers : qkv.convert(numbers, "f32", type);
}

function problem(seed) {
  const random = generator(seed);
  const type = ["f32", "f64", "f16", "bf16"][seed % 4];
  const kvHeads = random.between(1, 3),
    heads = kvHeads * random.between(1, 4);
  const o = {
    type,
    batch: random.between(1, 2),
    heads,
    kvHeads,
    headDim: random.between(1, 70),
    headDimV: random.between(1, 70),
    queries: random.chance(30) ? 1 : random.between(1, 40),
    keys: random.between(1, 300),
    layout: random.chance(50) ? "bhtd" : "bthd",
  };
  const Real = type === "f64" ? Float64Array : Float32Array;
  if (random.chance(60)) o.causal = random.chance(80) ? true : "strict";
  if (random.chance(30)) o.align = "top-left";
  if (random.chance(30))
    o.window = [random.between(0, 50), random.chance(50) ? null : random.between(0, 9)];
  if (random.chance(30)) o.softcap = 1 + 20 * random.next();
  if (random.chance(30)) o.scale = random.next();
  if (random.chance(30)) o.sinks = Real.from({ length: heads }, random.normal);
  if (random.chance(20)) o.slopes = Real.from({ length: heads }, random.next);
  if (random.chance(30))
    o.mask = Uint8Array.from({ length: o.queries * o.keys }, () => random.between(0, 1));
  if (random.chance(20)) o.bias = Real.from({ length: heads * o.queries * o.keys }, random.normal);
  if (random.chance(20))
    o.kvLens = Int32Array.from({ length: o.batch }, () => random.between(0, o.keys));
  const q = tensor(random, o.batch * heads * o.queries * o.headDim, type);
  const k = tensor(random, o.batch * kvHeads * o.keys * o.headDim, type);
  const v = tensor(random, o.batch * kvHeads * o.keys * o.headDimV, type);
  return { q, k, v, o };
}

/** The order of o in the oracle, which is always that of bhtd. */
function inOrder(array, o) {
  if (o.layout === "bhtd") return array;
  const out = array.slice(),
    { batch, heads, queries, headDimV: dim } = o;
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < heads; h++)
      for (let t = 0; t < queries; t++)
        for (let c = 0; c < dim; c++)
          out[((b * heads + h) * queries + t) * dim + c] =
            array[((b * queries + t) * heads + h) * dim + c];
  return out;
}

/** The worst error as a fraction of the budget. */
function worst(got, want, budget) {
  assert.equal(got.length, want.length);
  let most = 0;
  for (let i = 0; i < got.length; i++) {
    if (Object.is(got[i], want[i]) || got[i] === want[i]) continue;
    assert.ok(
      !Number.isNaN(got[i]) === !Number.isNaN(want[i]),
      `element ${i} is ${got[i]}, not ${want[i]}`,
    );
    if (Number.isNaN(want[i])) continue;
    assert.ok(
      budget[i] > 0,
      `element ${i} is ${got[i]}, not ${want[i]}, and the budget is ${budget[i]}`,
    );
    most = Math.max(most, Math.abs(got[i] - want[i]) / budget[i]);
  }
  return most;
}

for (const tier of ["best", "scalar"])
  test(`100 random problems, kernels of the tier ${tier}, against the oracle`, () => {
    const seen = new Set();
    for (let seed = 1; seed <= 100; seed++) {
      const { q, k, v, o } = problem(seed);
      const got = qkv.attention(q, k, v, { ...o, tier, lse: true, weights: true });
      const want = qkv.reference(q, k, v, o);
      const asDouble = o.type === "f64" ? got.o : qkv.convert(got.o, o.type, "f64");
      assert.ok(worst(inOrder(asDouble, o), want.o, want.oBudget) <= 1, `o, seed ${seed}`);
      assert.ok(worst(got.lse, want.lse, want.lseBudget) <= 1, `lse, seed ${seed}`);
      for (let i = 0; i < got.weights.length; i++)
        assert.ok(Math.abs(got.weights[i] - want.weights[i]) < 2e-3, `weights, seed ${seed}`);
      seen.add(got.kernel);
    }
    const ending = tier === "best" ? "__wasm128" : "__scalar";
    assert.ok(
      [...seen].every((name) => name.endsWith(ending)),
      [...seen].join(" "),
    );
    assert.ok(seen.size >= 6, [...seen].join(" "));
  });

test("absorbed MLA: values in the keys are the first channels of them", () => {
  const random = generator(7),
    o = { heads: 4, kvHeads: 1, headDim: 24, headDimV: 16, causal: true };
  const q = tensor(random, 4 * 3 * 24, "f32"),
    k = tensor(random, 9 * 24, "f32");
  const v = Float32Array.from({ length: 9 * 16 }, (_, i) => k[Math.floor(i / 16) * 24 + (i % 16)]);
  const together = qkv.attention(q, k, null, { ...o, valuesInKeys: true });
  assert.deepEqual(together.o, qkv.attention(q, k, v, o).o);
});

test("stages: scores, soft-cap, mask, weights", () => {
  const o = { headDim: 4, causal: true, softcap: 3, queries: 2, keys: 2 };
  const q = Float32Array.of(1, 2, 3, 4, 4, 3, 2, 1),
    k = Float32Array.of(1, 0, 1, 0, 2, 2, 2, 2);
  const at = (weights) => qkv.attention(q, k, k, { ...o, weights }).weights;
  assert.deepEqual([...at("scores")], [2, 10, 3, 10]);
  const capped = at("capped");
  assert.ok(Math.abs(capped[1] - 3 * Math.tanh(10 / 3)) < 1e-5);
  assert.equal(at("biased")[1], -Infinity);
  const weights = at(true);
  assert.deepEqual([weights[0], weights[1]], [1, 0]);
  assert.ok(Math.abs(weights[2] + weights[3] - 1) < 1e-6);
});

test("hidden NaN does not show, a visible one does, empty rows are zero", () => {
  const k = Float32Array.of(1, 1, NaN, NaN),
    v = Float32Array.of(5, 6, NaN, Infinity);
  const q = Float32Array.of(1, 1, 1, 1),
    o = { headDim: 2, causal: true, lse: true };
  const { o: out } = qkv.attention(q, k, v, o);
  assert.deepEqual([...out], [5, 6, NaN, NaN]);
  const none = qkv.attention(q, k, v, { ...o, kvLens: Int32Array.of(0) });
  assert.deepEqual([...none.o], [0, 0, 0, 0]);
  assert.deepEqual([...none.lse], [-Infinity, -Infinity]);
  const empty = qkv.attention(q, new Float32Array(0), new Float32Array(0), o);
  assert.deepEqual([...empty.o], [0, 0, 0, 0]);
});

test("refusals name the field", () => {
  const q = new Float32Array(8),
    good = { headDim: 4 };
  const refused = (options, pattern, ...tensors) =>
    assert.throws(
      () => qkv.attention(...(tensors.length ? tensors : [q, q, q]), options),
      (error) => error instanceof QkvError && pattern.test(error.message),
    );
  refused({}, /headDim is missing/);
  refused({ headDim: 1.5 }, /headDim is 1.5/);
  refused({ headDim: 3 }, /8 elements over 3/);
  refused(
    { ...good, heads: 2, kvHeads: 1, queries: 1, keys: 3 },
    /k has 8 elements; it must have 12/,
  );
  refused({ ...good, causal: "no" }, /causal is no/);
  refused({ ...good, softcap: -1 }, /softcap is -1/);
  refused({ ...good, scale: NaN }, /scale is NaN/);
  refused({ ...good, window: [-2, null] }, /window\[0\] is -2/);
  refused({ ...good, mask: new Uint8Array(3) }, /mask has 3 elements/);
  refused({ ...good, sinks: new Float32Array(2) }, /sinks has 2 elements; it must have 1/);
  refused({ ...good, softCap: 1 }, /softCap is no option/);
  refused({ ...good, type: "int8" }, /type is int8/);
  refused(good, /k must be a Float32Array/, q, [1, 2, 3, 4], q);
  refused(
    { headDim: 2048 },
    /head_dim is 2048/,
    new Float32Array(2048),
    new Float32Array(2048),
    new Float32Array(2048),
  );
  refused(
    { headDim: 4, heads: 3, kvHeads: 2 },
    /n_kv_heads is 2; it must divide/,
    new Float32Array(12),
    new Float32Array(8),
    new Float32Array(8),
  );
});

test("what addresses of 32 bits cannot hold is refused, and the module goes on", () => {
  const q = new Float32Array(40000),
    o = { headDim: 1, heads: 1, queries: 40000, keys: 40000, causal: true };
  assert.throws(
    () => qkv.attention(q, q, q, { ...o, weights: true }),
    (error) => error.name === "QKV_ERR_MEMORY",
  );
  const { o: one } = qkv.attention(
    q.subarray(0, 4),
    q.subarray(0, 4),
    Float32Array.of(1, 2, 3, 4),
    { headDim: 4 },
  );
  assert.deepEqual([...one], [1, 2, 3, 4]);
});

test("memory is given back", () => {
  const n = 1 << 20,
    q = new Float32Array(4 * 64),
    big = new Float32Array(n);
  for (let i = 0; i < 2000; i++)
    qkv.attention(q, big, big, { headDim: 64, kvLens: Int32Array.of(1) });
});
