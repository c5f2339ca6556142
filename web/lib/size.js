// size.js - what a model's attention costs: options become a web_size (web/src/size.inc), the answer
// is that of `qkv size --json`.
import { readConfig } from "./config.js";
import { choice, count, known, refuse } from "./checks.js";

const REPORT_BYTES = 1 << 18;
const COMPUTE = new Map([
  ["f32", 2],
  ["f16", 3],
  ["bf16", 4],
]);
const SCALE_HEAD = 1; // QKV_SCALE_HEAD
const SOLVE = new Map([
  ["context", 1],
  ["users", 2],
  ["groups", 3],
  ["format", 4],
]);
/** Option and field, for options that are counts. */
const COUNTS = {
  context: "context",
  batch: "batch",
  chunk: "chunk",
  encoderTokens: "memory_tokens",
  pageTokens: "page_tokens",
  weightBits: "weight_bits",
  ranks: "ranks",
  reserve: "reserve",
  memory: "memory",
};
/** The same for a model in numbers. */
const MODEL = {
  layers: "layers",
  dModel: "d_model",
  heads: "heads",
  kvHeads: "kv_heads",
  headDim: "head_dim",
  headDimV: "head_dim_v",
  latent: "latent",
  ropeDim: "rope_dim",
  qLatent: "q_latent",
  window: "window",
  fullEvery: "full_every",
  dFf: "d_ff",
  vocab: "vocab",
};
const OTHERS =
  "kv compute pairs absorbed split cacheOnly latency machine variant solve as model".split(" ");

/** Lines of web/src/lines.h as a value. */
function parseLines(text) {
  const root = {};
  for (const line of text.split("\n")) {
    if (line === "") continue;
    const [path, kind, ...rest] = line.split("\t");
    const names = path.split("."),
      last = names.pop();
    let at = root;
    names.forEach((name, i) => {
      at[name] ??= /^\d+$/.test(names[i + 1] ?? last) ? [] : {};
      at = at[name];
    });
    at[last] = valueOf(kind, rest.join("\t"));
  }
  return root;
}

function valueOf(kind, text) {
  switch (kind) {
    case "i": {
      const exact = BigInt(text);
      return exact <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(exact) : exact;
    }
    case "f":
      return Number(text.replace(/^(-?)inf$/, "$1Infinity"));
    case "b":
      return text === "1";
    case "e":
      return [];
    case "n":
      return null;
    default:
      return text;
  }
}

/** "gqa:8", "mla:512:64" as fields. */
function variantFields(text) {
  if (text === "mha") return { variant: 1 };
  if (text === "mqa") return { variant: 1, variant_kv_heads: 1 };
  if (text === "mla") return { variant: 2 };
  const gqa = /^gqa:(\d+)$/.exec(text),
    mla = /^mla:(\d+)(?::(\d+))?(?::(\d+))?$/.exec(text);
  if (gqa && Number(gqa[1]) > 0) return { variant: 1, variant_kv_heads: Number(gqa[1]) };
  if (mla)
    return {
      variant: 2,
      variant_latent: Number(mla[1]),
      variant_rope: Number(mla[2] ?? 0),
      variant_q_latent: Number(mla[3] ?? 0),
    };
  return refuse(`variant is ${String(text)}; accepted are mha, gqa:N, mqa, mla, mla:C and mla:C:R`);
}

/** JSON of a report: exact counts are bare digits, also those above 2^53. */
export function toJson(value, indent = 2) {
  const text = JSON.stringify(
    value,
    (key, x) => (typeof x === "bigint" ? `\u0001${x}` : x),
    indent,
  );
  return text.replace(/"\\u0001(\d+)"/g, "$1");
}

/** Functions over one module. */
export function sizeOf(module) {
  const { exports } = module;
  const fields = [];
  for (let at; (at = exports.web_size_field(fields.length)) !== 0; ) fields.push(module.text(at));

  function list(get) {
    return module.scope((take) => {
      const at = take(4096),
        found = [];
      while (get(found.length, at)) found.push(parseLines(module.text(at)).machine);
      return found;
    });
  }
  const machines = list((i, at) => exports.web_machine(i, at, 4096) === 0);
  const formats = new Map();
  for (let number = 0; number < 128; number++) {
    const name = exports.web_format_name(number);
    if (name !== 0) formats.set(module.text(name), number);
  }

  function machineFields(machine) {
    if (typeof machine === "string") {
      const index = machines.findIndex((m) => m.name === machine);
      if (index < 0)
        refuse(`machine is ${machine}; accepted are ${machines.map((m) => m.name).join(", ")}`);
      return { machine: index };
    }
    const { f32, narrow, bytes } = machine ?? {};
    for (const [name, rate] of Object.entries({ f32, narrow, bytes }))
      if (typeof rate !== "number" || !(rate > 0))
        refuse(`machine.${name} is ${String(rate)}; it must be above 0`);
    return { machine: -2, machine_f32: f32, machine_16: narrow, machine_bytes: bytes };
  }

  function formatFields(kv) {
    const [k, v] =
      typeof kv === "string"
        ? kv.split(",")
        : refuse("kv must be a text such as bf16 or int8,bf16");
    const scale = (word) => (word === "head" ? 1 : 0);
    const one = (text) => {
      const [name, rest] = text.split(":");
      const number = choice("kv", name, formats);
      if (rest !== undefined && rest !== "head" && !["32", "64", "128"].includes(rest))
        refuse(`kv is ${kv}; behind the colon are 32, 64, 128 or head`);
      return { number, group: rest && rest !== "head" ? Number(rest) : 0, byHead: scale(rest) };
    };
    const a = one(k),
      b = one(v ?? k);
    return { k_format: a.number, v_format: b.number, k_group: a.group, v_group: b.group, a, b };
  }

  /** The fields of options, over the defaults at address. */
  function set(at, options) {
    const row = module.view(Float64Array, at, fields.length);
    const put = (name, value) => (row[fields.indexOf(name)] = value);
    known(options, [...Object.keys(COUNTS), ...OTHERS]);
    for (const [name, field] of Object.entries(COUNTS))
      if (options[name] !== undefined) put(field, count(name, options[name]));
    if (options.kv !== undefined) {
      const { a, b, ...formatsOf } = formatFields(options.kv);
      Object.entries(formatsOf).forEach(([name, value]) => put(name, value));
      if (a.byHead) put("k_scale", SCALE_HEAD);
      if (b.byHead) put("v_scale", SCALE_HEAD);
    }
    if (options.compute !== undefined) put("compute", choice("compute", options.compute, COMPUTE));
    if (options.pairs !== undefined)
      put(
        "pairs",
        choice(
          "pairs",
          options.pairs,
          new Map([
            ["visible", 0],
            ["square", 1],
          ]),
        ),
      );
    if (options.absorbed !== undefined)
      put(
        "absorbed",
        choice(
          "absorbed",
          options.absorbed,
          new Map([
            [false, 0],
            [true, 1],
          ]),
        ),
      );
    if (options.split !== undefined)
      put(
        "split",
        choice(
          "split",
          options.split,
          new Map([
            ["heads", 1],
            ["context", 2],
          ]),
        ),
      );
    if (options.cacheOnly) put("cache_only", 1);
    if (options.latency !== undefined) {
      if (!(options.latency > 0))
        refuse(`latency is ${String(options.latency)}; it must be seconds above 0`);
      put("latency", options.latency);
    }
    const more = {
      ...(options.machine !== undefined && options.machine !== null
        ? machineFields(options.machine)
        : {}),
      ...(options.variant !== undefined && options.variant !== null
        ? variantFields(options.variant)
        : {}),
    };
    Object.entries(more).forEach(([name, value]) => put(name, value));
  }

  function setModel(at, model) {
    const row = module.view(Float64Array, at, fields.length);
    for (const [name, value] of Object.entries(model)) {
      if (name === "tied") row[fields.indexOf("tied")] = value ? 1 : 0;
      else if (name in MODEL) row[fields.indexOf(MODEL[name])] = count(`model.${name}`, value);
      else refuse(`model.${name} is no field; they are ${Object.keys(MODEL).join(", ")}, tied`);
    }
  }

  /** Makes config (or options.model) the module's model, and calls body(address of the question). */
  function ask(take, config, options) {
    const at = take(8 * fields.length);
    exports.web_size_defaults(at);
    set(at, options);
    if (config !== null) {
      readConfig(module, config, options.as);
    } else {
      if (!options.model) refuse("config is null, and options.model is not given");
      setModel(at, options.model);
      module.check(take, (text, bytes) => exports.web_model_of(at, text, bytes));
    }
    return at;
  }

  function reported(take, call) {
    const lines = take(REPORT_BYTES);
    module.check(take, (text, bytes) => call(lines, REPORT_BYTES, text, bytes));
    return parseLines(module.text(lines));
  }

  function size(config, options = {}) {
    const solve = options.solve ?? [];
    // The longest context is all that is asked: then the report is about that one, as in qkv size.
    const asksContext = options.context === undefined && solve.join() === "context";
    return module.scope((take) => {
      const at = ask(take, config, asksContext ? { ...options, context: 1 } : options);
      const solved = solve.map((what) => {
        const number = choice("solve", what, SOLVE);
        return reported(take, (...to) => exports.web_size_solve(at, number, ...to));
      });
      if (asksContext && solved[0].found) set(at, { context: solved[0].value });
      return { ...reported(take, (...to) => exports.web_size_report(at, ...to)), solved };
    });
  }

  /** Bytes at contexts, for curves. */
  function sizeCurve(config, contexts, options = {}) {
    return module.scope((take) => {
      const at = ask(take, config, { context: contexts[0], ...options }),
        n = contexts.length;
      const from = module.put(
        take,
        Float64Array.from(contexts, (c) => count("contexts", c)),
      );
      const payload = take(8 * n),
        allocated = take(8 * n);
      module.check(take, (text, bytes) =>
        exports.web_size_curve(at, n, from, payload, allocated, text, bytes),
      );
      const copy = (address) => [...module.view(Float64Array, address, n)];
      return { payload: copy(payload), allocated: copy(allocated) };
    });
  }

  return { size, sizeCurve, machines, formats: [...formats.keys()] };
}
