// package.test.mjs - the npm package as a user gets it: packed, installed, typed, its examples run.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { load, nodeModules, packageFolder } from "./paths.mjs";

const folder = mkdtempSync(join(tmpdir(), "qkv-package-"));
after(() => rmSync(folder, { recursive: true }));
const run = (program, args) =>
  execFileSync(program, args, { cwd: folder, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });

test("packs and installs without dependencies", () => {
  const [{ filename, files }] = JSON.parse(run("npm", ["pack", "--json", packageFolder]));
  const names = files.map((file) => file.path);
  for (const name of ["lib/index.js", "lib/index.d.ts", "lib/qkv.wasm", "README.md", "LICENSE"])
    assert.ok(names.includes(name), `${name} is not in the package`);
  writeFileSync(join(folder, "package.json"), '{"private": true, "type": "module"}');
  run("npm", ["install", "--offline", "--no-audit", "--no-fund", `./${filename}`]);
  assert.equal(run("npm", ["ls", "--all", "--parseable"]).trim().split("\n").length, 2);
});

test("has the version of the library", async () => {
  const { version } = JSON.parse(readFileSync(join(packageFolder, "package.json"), "utf8"));
  assert.equal((await load()).version, version);
});

test("imports nothing", () => {
  const module = new WebAssembly.Module(readFileSync(join(packageFolder, "lib/qkv.wasm")));
  assert.deepEqual(WebAssembly.Module.imports(module), []);
});

test("the example runs", () => {
  const text = run("node", ["node_modules/qkv/examples/node.mjs"]);
  assert.match(
    text,
    /^384 numbers by decode_f32_f32_f32__wasm128; lse of the first query -?\d+\.\d{4}\n/,
  );
  assert.match(text, /keep 20971520000 bytes/);
});

test("its types take right uses and refuse wrong ones", () => {
  writeFileSync(
    join(folder, "use.mts"),
    `
import { load, toJson, QkvError, type SizeReport } from "qkv";
const qkv = await load(new Uint8Array(1));
const a = new Float32Array(8);
const { o, lse, kernel } = qkv.attention(a, a, a, { headDim: 4, causal: "strict", window: [3, null], lse: true });
const text: string = kernel + toJson(o) + (lse?.length ?? 0);
const report: SizeReport = qkv.size("{}", { context: 5, kv: "int8", machine: "h100-sxm", solve: ["users"] });
const bytes: number | bigint = report.models[0].cache.payload;
// @ts-expect-error headDim is missing
qkv.attention(a, a, a, {});
// @ts-expect-error no such option
qkv.size(null, { model: { layers: 1, dModel: 2, heads: 1 }, contexts: 3 });
export { text, bytes, QkvError };
`,
  );
  run("node", [
    join(nodeModules, "typescript/bin/tsc"),
    "--noEmit",
    "--strict",
    "--target",
    "es2022",
    "--module",
    "nodenext",
    "--lib",
    "es2022,dom",
    "use.mts",
  ]);
});
