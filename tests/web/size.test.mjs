// size.test.mjs - sizing in the package: published numbers, and the same as `qkv size --json` says.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { command, configs, hasCommand, load, QkvError, toJson } from "./paths.mjs";

const qkv = await load();
const files = readdirSync(configs).filter((name) => name.endsWith(".json"));
const read = (name) => readFileSync(configs + name, "utf8");
const payload = (name, context, kv = "bf16") =>
  qkv.size(read(name), { context, kv }).models[0].cache.payload;

test("published sizes", () => {
  assert.equal(payload("llama-3.1-8b.json", 131072), 16 * 2 ** 30);
  assert.equal(payload("llama-3.1-8b.json", 131072, "q8_0"), 8.5 * 2 ** 30);
  assert.equal(payload("llama-3.1-8b.json", 131072, "q4_0"), 4.5 * 2 ** 30);
  assert.equal(payload("llama-3.1-70b.json", 131072), 40 * 2 ** 30);
  assert.equal(payload("qwen3-0.6b.json", 40960), 4.375 * 2 ** 30);
  assert.equal(payload("deepseek-v3.json", 1), 70272);
  assert.equal(payload("smollm2-135m.json", 8192), 180 * 2 ** 20);
  assert.equal(payload("gemma-3-270m.json", 32768), 103.5 * 2 ** 20);
  const seventy = { layers: 80, dModel: 8192, heads: 64 };
  const at = (model) => qkv.size(null, { model, context: 64000 }).models[0].cache.payload;
  assert.equal(at(seventy), 167772160000);
  assert.equal(at({ ...seventy, kvHeads: 8 }), 20971520000);
});

/** The command's answer; its exit status 1 says that something does not fit. */
function ask(args) {
  try {
    return execFileSync(command, ["size", ...args, "--json"], { encoding: "utf8" });
  } catch (error) {
    if (error.status !== 1) throw error;
    return error.stdout;
  }
}

/** Integers of JSON text exactly. */
const exactly = (text) =>
  JSON.parse(
    text.replace(/"(?:[^"\\]|\\.)*"|(-?\d+)(?![\d.eE])/g, (token, whole, at, all) =>
      whole === undefined || /[.eE\d]/.test(all[at - 1] ?? "") ? token : `"#${whole}"`,
    ),
  );
const names = (path) => path.join(".");

function same(got, want, path = []) {
  if (want !== null && typeof want === "object") {
    for (const key of Object.keys(want))
      if (!(path.length === 2 && key === "name")) same(got?.[key], want[key], [...path, key]);
    assert.equal(
      Object.keys(got)
        .filter((key) => !(key in want) && !(path.length === 0 && key === "layers"))
        .join(),
      "",
      names(path),
    );
    return;
  }
  if (typeof want === "string" && want.startsWith("#")) assert.equal(`#${got}`, want, names(path));
  else if (typeof want === "number")
    assert.equal(Number(got.toPrecision(9)), Number(want.toPrecision(9)), names(path));
  else assert.deepEqual(got, want, names(path));
}

const questions = [
  [[], {}],
  [
    [
      "--context",
      "4096",
      "--batch",
      "3",
      "--kv",
      "int8,int4:64",
      "--memory",
      "24GiB",
      "--solve",
      "context,users,format",
    ],
    {
      context: 4096,
      batch: 3,
      kv: "int8,int4:64",
      memory: 24 * 2 ** 30,
      solve: ["context", "users", "format"],
    },
  ],
  [
    ["--context", "100000", "--machine", "h100-sxm", "--weights", "int4", "--latency", "20ms"],
    { context: 100000, machine: "h100-sxm", weightBits: 4, latency: 0.02 },
  ],
  [["--memory", "1TiB", "--solve", "context"], { memory: 2 ** 40, solve: ["context"] }],
  [
    [
      "--context",
      "1048576",
      "--kv",
      "e4m3:head",
      "--square",
      "--machine",
      "graviton3",
      "--cache-only",
      "--memory",
      "1GiB",
    ],
    {
      context: 1048576,
      kv: "e4m3:head",
      pairs: "square",
      machine: "graviton3",
      cacheOnly: true,
      memory: 2 ** 30,
    },
  ],
];

for (const file of files)
  test(
    `${file} as the command says it`,
    { skip: hasCommand ? false : `there is no ${command}` },
    () => {
      for (const [args, options] of questions) {
        const want = exactly(ask([configs + file, ...args]));
        const got = qkv.size(read(file), options);
        same(got, want);
        const again = JSON.parse(JSON.stringify(exactly(toJson(got))));
        delete again.layers;
        same(got, again); // what the page exports
      }
    },
  );

test("a model in numbers and its variants as the command says them", { skip: !hasCommand }, () => {
  const args = [
    "--layers",
    "12",
    "--d-model",
    "768",
    "--heads",
    "12",
    "--kv-heads",
    "4",
    "--window",
    "512",
    "--full-every",
    "6",
    "--context",
    "8k",
    "--vocab",
    "50257",
    "--d-ff",
    "3072",
  ];
  const model = {
    layers: 12,
    dModel: 768,
    heads: 12,
    kvHeads: 4,
    window: 512,
    fullEvery: 6,
    vocab: 50257,
    dFf: 3072,
  };
  const want = exactly(ask([...args, "--compare", "mha,gqa:2,mqa,mla,mla:256:32"]));
  same(qkv.size(null, { model, context: 8192 }), { ...want, models: [want.models[0]] });
  ["mha", "gqa:2", "mqa", "mla", "mla:256:32"].forEach((variant, i) => {
    const got = qkv.size(null, { model, context: 8192, variant });
    same(got.models[0].cache, want.models[i + 1].cache);
    same(got.models[0].work, want.models[i + 1].work);
    same(got.models[0].parameters, want.models[i + 1].parameters);
  });
  const latent = {
    layers: 4,
    dModel: 512,
    heads: 8,
    headDim: 64,
    latent: 128,
    ropeDim: 32,
    qLatent: 256,
  };
  const mla = exactly(
    ask([
      "--layers",
      "4",
      "--d-model",
      "512",
      "--heads",
      "8",
      "--head-dim",
      "64",
      "--latent",
      "128",
      "--rope-dim",
      "32",
      "--q-latent",
      "256",
      "--context",
      "777",
    ]),
  );
  same(qkv.size(null, { model: latent, context: 777 }), mla);
});

test("curves are the sizes", () => {
  const contexts = [1, 1000, 4096, 131072];
  for (const file of files) {
    const { payload: bytes } = qkv.sizeCurve(read(file), contexts);
    assert.deepEqual(
      bytes,
      contexts.map((context) => Number(payload(file, context))),
    );
  }
});

test("numbers keep their kind: 10000.0 is real, text stays text", () => {
  const text = read("llama-3.1-8b.json");
  const broken = text.replace(/"num_hidden_layers": 32/, '"num_hidden_layers": 32.0');
  assert.notEqual(broken, text);
  assert.throws(() => qkv.size(broken), /num_hidden_layers is 32; accepted are whole numbers/);
  const quoted = text.replace(/\{/, '{"note": "1.5 \\"2\\" [3]", ');
  assert.equal(qkv.size(quoted).models[0].cache.payload, qkv.size(text).models[0].cache.payload);
  assert.equal(toJson({ a: 2n ** 60n, b: "1" }, 0), '{"a":1152921504606846976,"b":"1"}');
});

test("refusals name the field", () => {
  const refused = (config, options, pattern) =>
    assert.throws(
      () => qkv.size(config, options),
      (error) => error instanceof QkvError && pattern.test(error.message),
    );
  const llama = read("llama-3.1-8b.json");
  refused("{", {}, /not JSON/);
  refused(7, {}, /text of a config.json/);
  refused("{}", {}, /model_type/);
  refused('{"model_type": "no-such-model"}', {}, /no-such-model/);
  refused(llama, { context: -1 }, /context is -1/);
  refused(llama, { context: 0 }, /context is 0/);
  refused(llama, { batch: 1e9 }, /batch is 1000000000/);
  refused(llama, { kv: "int3" }, /kv is int3/);
  refused(llama, { kv: "int8:7" }, /colon/);
  refused(llama, { machine: "abacus" }, /machine is abacus/);
  refused(llama, { variant: "gqa:7" }, /7/);
  refused(llama, { variant: "gqa" }, /variant is gqa/);
  refused(llama, { solve: ["users"] }, /memory|budget/);
  refused(llama, { Context: 1 }, /Context is no option/);
  refused(null, {}, /options.model is not given/);
  refused(
    null,
    { model: { layers: 1, dModel: 64, heads: 3, kvHeads: 2 }, context: 5 },
    /n_kv_heads is 2/,
  );
  refused(null, { model: { layers: 1, dModel: 64, heads: 4 } }, /context is not given/);
});
