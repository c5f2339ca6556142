// page.test.mjs - the page in Chromium: as a folder over HTTP and as one file from file://.
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { serve } from "../../web/serve.mjs";
import {
  configs,
  load,
  nodeModules,
  packageFolder,
  shots,
  singleFile,
  siteFolder,
  toJson,
} from "./paths.mjs";

const require = createRequire(nodeModules);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const qkv = await load();
const file = pathToFileURL(singleFile).href;
let browser, site, examples;

before(async () => {
  mkdirSync(shots, { recursive: true });
  browser = await chromium.launch({
    executablePath: process.env.QKV_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  site = await serve(siteFolder, 0);
  examples = await serve(packageFolder, 0);
});

after(async () => {
  await browser?.close();
  site?.server.close();
  examples?.server.close();
});

/** A page that has started, with what it must not do: log errors, or ask for what is not its own. */
async function open(url, options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 900 },
    acceptDownloads: true,
    ...options,
  });
  const page = await context.newPage(),
    troubles = [],
    own = new URL(url).origin;
  page.on(
    "console",
    (message) => ["error", "warning"].includes(message.type()) && troubles.push(message.text()),
  );
  page.on("pageerror", (error) => troubles.push(error.message));
  page.on("request", (request) => {
    const address = request.url();
    if (/^(data|blob):/.test(address) || address === url) return;
    if (own === "null" ? !address.startsWith(file) : !address.startsWith(own))
      troubles.push(`asks for ${address}`);
  });
  await page.goto(url);
  await page.waitForSelector("body[data-ready]");
  return {
    page,
    close: async () => {
      assert.deepEqual(troubles, []);
      await context.close();
    },
  };
}

const summary = (page) => page.locator("#summary").innerText();
const digits = (n) => n.toLocaleString("en");

test("both forms start and say the same", async () => {
  const texts = [];
  for (const url of [site.address, file]) {
    const { page, close } = await open(url);
    texts.push(await page.locator("#size").innerText());
    await close();
  }
  assert.equal(texts[0], texts[1]);
  assert.match(texts[0], /4,294,967,296 bytes/);
});

test("every preset: the bytes on the page are those of the package, which are the command's", async () => {
  const { page, close } = await open(file);
  const presets = await page.locator("#f-preset option").allTextContents();
  assert.ok(presets.length >= 9);
  for (const preset of presets) {
    const config = readFileSync(`${configs}${preset}.json`, "utf8");
    await page.selectOption("#f-preset", preset);
    for (const kv of ["bf16", "int8", "q8_0"]) {
      await page.selectOption("#f-kv", kv);
      const { cache } = qkv.size(config, { context: 32768, kv }).models[0];
      assert.ok(
        (await summary(page)).includes(`${digits(cache.payload)} bytes`),
        `${preset} ${kv}`,
      );
    }
    await page.selectOption("#f-kv", "bf16");
  }
  await close();
});

test("the exported JSON is the package's answer, the CSV its lines", async () => {
  const { page, close } = await open(
    `${file}#preset=deepseek-v3&context=163840&memory=1024&machine=h100-sxm`,
  );
  const saved = async (id) => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(id)]);
    return readFileSync(await download.path(), "utf8");
  };
  const report = qkv.size(readFileSync(`${configs}deepseek-v3.json`, "utf8"), {
    context: 163840,
    memory: 2 ** 40,
    machine: "h100-sxm",
    solve: ["users", "context"],
  });
  delete report.layers;
  assert.equal(await saved("#export-json"), `${toJson(report)}\n`);
  assert.match(
    await saved("#export-csv"),
    new RegExp(`\nmodels.0.cache.payload,${report.models[0].cache.payload}\n`),
  );
  await close();
});

test("state lives in the address and comes back", async () => {
  const { page, close } = await open(file);
  await page.fill("#f-context", "64000");
  await page.press("#f-context", "Tab");
  await page.selectOption("#f-source", "numbers");
  await page.selectOption("#f-variant", "MHA");
  for (const [id, value] of [
    ["layers", "80"],
    ["dModel", "8192"],
    ["heads", "64"],
  ]) {
    await page.fill(`#f-${id}`, value);
    await page.press(`#f-${id}`, "Tab");
  }
  const before = await summary(page),
    address = page.url();
  assert.match(before, /167,772,160,000 bytes/);
  assert.match(address, /context=64000/);
  await close();
  const again = await open(address);
  assert.equal(await summary(again.page), before);
  await again.page.evaluate(() => {
    location.hash = "#preset=smollm2-135m&context=8192";
  });
  await again.page.waitForFunction(() =>
    document.getElementById("summary").innerText.includes("188,743,680"),
  );
  await again.close();
});

test("a config.json: pasted, dropped, wrong", async () => {
  const { page, close } = await open(`${file}#source=config.json`);
  const text = readFileSync(`${configs}gemma-3-27b.json`, "utf8");
  assert.match(await page.locator("#size-refusal").innerText(), /not JSON/);
  await page.fill("#f-config", text);
  const { cache } = qkv.size(text, { context: 32768 }).models[0];
  assert.ok((await summary(page)).includes(digits(cache.payload)));
  assert.match(await page.locator("#strip").innerText(), /window of 1024/);
  await page.fill("#f-config", '{"model_type": "abacus"}');
  assert.match(await page.locator("#size-refusal").innerText(), /abacus/);
  assert.ok(await page.locator("#size-results").isHidden());
  const data = await page.evaluateHandle(
    (json) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([json], "config.json"));
      return transfer;
    },
    readFileSync(`${configs}smollm2-135m.json`, "utf8"),
  );
  await page.dispatchEvent("#f-config", "drop", { dataTransfer: data });
  await page.waitForFunction(() => !document.getElementById("size-results").hidden);
  assert.match(await page.locator("#strip").innerText(), /30 layers/);
  await close();
});

test("with the keyboard alone", async () => {
  const { page, close } = await open(file);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.id), "tab-size");
  await page.keyboard.press("ArrowRight");
  assert.ok(await page.locator("#play").isVisible());
  await page.keyboard.press("ArrowLeft");
  assert.ok(await page.locator("#size").isVisible());
  const before = await summary(page);
  await page.focus('input[aria-label="Context, tokens, slider"]');
  for (let i = 0; i < 8; i++) await page.keyboard.press("ArrowRight"); // eight eighths
  assert.equal(await page.inputValue("#f-context"), "65536");
  assert.notEqual(await summary(page), before);
  const reached = new Set();
  for (let i = 0; i < 60; i++) {
    await page.keyboard.press("Tab");
    reached.add(
      await page.evaluate(
        () => document.activeElement.id || document.activeElement.getAttribute("aria-label"),
      ),
    );
  }
  for (const id of ["f-kv", "f-memory", "export-json", "copy-link"]) assert.ok(reached.has(id), id);
  await close();
});

test("the playground shows what the package computes", async () => {
  const { page, close } = await open(`${file}#tab=play`);
  const matrix = (n) => page.locator("#matrices table").nth(n);
  const row = async (n, i) =>
    await matrix(n).locator("tbody tr").nth(i).locator("td").allTextContents();
  assert.equal(await matrix(3).locator("tbody tr").count(), 9);
  for (let i = 0; i < 9; i++) {
    const weights = await row(3, i);
    assert.equal(weights.filter((x) => x !== "hidden").length, i + 2); // query 0 stands at 1
    assert.ok(Math.abs(weights.reduce((a, x) => a + (Number(x) || 0), 0) - 1) < 0.06);
    const scaled = await row(1, i);
    assert.deepEqual((await row(2, i)).slice(0, i + 2), scaled.slice(0, i + 2));
    const plain = await row(0, i);
    scaled.forEach((x, j) => assert.ok(Math.abs(Number(x) - Number(plain[j]) / 4) < 0.01));
  }
  await page.selectOption("#f-align", "top-left");
  assert.equal((await row(3, 0)).filter((x) => x !== "hidden").length, 1);
  await page.selectOption("#f-causal", "strict");
  assert.equal((await row(3, 0)).filter((x) => x !== "hidden").length, 0);
  await page.fill("#f-pWindow", "2");
  await page.press("#f-pWindow", "Tab");
  assert.ok((await row(3, 8)).filter((x) => x !== "hidden").length <= 2);
  await close();
});

test("without sqrt(d) the softmax saturates; sink, soft-cap and sharing do what they say", async () => {
  const { page, close } = await open(`${file}#tab=play&pDim=1024&causal=no`);
  const measure = async (term) =>
    Number.parseFloat(
      await page.locator("#measures div", { hasText: term }).locator("dd").innerText(),
    );
  const spread = await measure("Spread"),
    largest = await measure("Largest");
  assert.ok(spread > 0.7 && spread < 1.3 && largest < 0.7, `${spread} ${largest}`);
  await page.uncheck("#f-scaled");
  assert.ok((await measure("Spread")) > 20);
  const saturated = await measure("Largest");
  assert.ok(saturated > 0.9, `${saturated}`);
  await page.fill("#f-softcap", "1");
  await page.press("#f-softcap", "Tab");
  assert.ok((await measure("Spread")) > 20, "the spread is before the cap");
  assert.ok((await measure("Largest")) < 0.4);
  await page.check("#f-sink");
  assert.match(await page.locator("#matrices").innerText(), /\bsink\b/);
  for (const [sharing, words] of [
    ["MHA", /keeps 2 x 4 x 1024 = 8192/],
    ["MQA", /keeps 2 x 1 x 1024 = 2048/],
    ["MLA", /keeps 32 numbers/],
  ]) {
    await page.selectOption("#f-sharing", sharing);
    assert.match(await page.locator("#sharing").innerText(), words);
  }
  await page.selectOption("#f-sharing", "GQA");
  await page.fill("#f-pGroups", "3");
  await page.press("#f-pGroups", "Tab");
  assert.match(await page.locator("#play-refusal").innerText(), /n_kv_heads is 3; it must divide/);
  await page.fill("#f-text", " ");
  assert.match(await page.locator("#play-refusal").innerText(), /no words/);
  await close();
});

/** A .safetensors file of f32 tensors. */
function safetensors(tensors) {
  let offset = 0;
  const header = Object.fromEntries(
    Object.entries(tensors).map(([name, { shape, data }]) => {
      const entry = { dtype: "F32", shape, data_offsets: [offset, offset + data.byteLength] };
      offset += data.byteLength;
      return [name, entry];
    }),
  );
  const text = Buffer.from(JSON.stringify(header)),
    length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  return Buffer.concat([
    length,
    text,
    ...Object.values(tensors).map(({ data }) => Buffer.from(data.buffer)),
  ]);
}

test("q, k and v of a file, and files that are none", async () => {
  const { page, close } = await open(`${file}#tab=play&causal=no`);
  const numbers = (n, s) => Float32Array.from({ length: n }, (_, i) => Math.sin(i + s));
  const q = numbers(2 * 3 * 8, 0),
    k = numbers(5 * 8, 1),
    v = numbers(5 * 4, 2);
  const whole = safetensors({
    q: { shape: [2, 3, 8], data: q },
    k: { shape: [1, 5, 8], data: k },
    v: { shape: [5, 4], data: v },
  });
  const put = async (buffer) => {
    await page.setInputFiles("#f-file", {
      name: "x.safetensors",
      mimeType: "application/octet-stream",
      buffer,
    });
    await page.waitForTimeout(100);
  };
  await put(whole);
  const { o } = qkv.attention(q, k, v, { heads: 2, kvHeads: 1, headDim: 8, headDimV: 4 });
  const shown = await page.locator("#matrices table").nth(4).locator("tbody td").allTextContents();
  assert.deepEqual(
    shown,
    [...o.subarray(0, 12)].map((x) => x.toFixed(2)),
  );
  assert.match(await page.locator("#sharing").innerText(), /2 query heads read 1 of keys/);
  const refused = async (buffer, pattern) => {
    await put(buffer);
    assert.match(await page.locator("#play-refusal").innerText(), pattern);
  };
  await refused(whole.subarray(0, 5), /it has 5 bytes/);
  await refused(whole.subarray(0, 60), /its header would have/);
  await refused(whole.subarray(0, whole.length - 1), /v has offsets/);
  await refused(Buffer.from("not a file of tensors at all"), /its header would have/);
  await refused(safetensors({ q: { shape: [1, 2], data: numbers(2, 0) } }), /no tensor k/);
  await refused(
    safetensors({ q: { shape: [65, 1], data: numbers(65, 0) } }),
    /q has the shape \[65, 1\]/,
  );
  await page.click("#back-to-words");
  assert.match(await page.locator("#matrices").innerText(), /tired/);
  await close();
});

test("text from the address is text, not markup", async () => {
  const evil = "<img src=x onerror=alert(1)>";
  const { page, close } = await open(
    `${file}#tab=play&text=${encodeURIComponent(evil)}&preset=%3Cb%3E&context=-5&batch=x`,
  );
  assert.equal(await page.locator("#matrices img").count(), 0);
  await close();
});

for (const scheme of ["light", "dark"])
  test(`accessible and not too wide, ${scheme}`, async () => {
    for (const [width, name] of [
      [390, "phone"],
      [820, "tablet"],
      [1440, "desktop"],
    ])
      for (const tab of ["size", "play"]) {
        const { page, close } = await open(`${site.address}#tab=${tab}&preset=gemma-3-27b`, {
          viewport: { width, height: 900 },
          colorScheme: scheme,
          reducedMotion: "reduce",
        });
        await page.waitForTimeout(200);
        await page.screenshot({ path: `${shots}${tab}-${name}-${scheme}.png`, fullPage: true });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
        assert.ok(wide <= 0, `${tab} at ${width} is ${wide} pixels too wide`);
        await page.evaluate(axe);
        const { violations } = await page.evaluate(() => window.axe.run());
        const bad = violations.filter((v) => ["serious", "critical"].includes(v.impact));
        assert.deepEqual(
          bad.map(
            (v) =>
              `${v.id}: ${v.nodes
                .slice(0, 3)
                .map((n) => n.html)
                .join(" ")}`,
          ),
          [],
        );
        await close();
      }
  });

test("the package's example in a browser", async () => {
  const context = await browser.newContext(),
    page = await context.newPage(),
    errors = [];
  page.on("pageerror", (error) => errors.push(error.message));
  await page.goto(`${examples.address}examples/browser.html`);
  await page.waitForFunction(() => document.getElementById("out").textContent.includes("bytes"));
  assert.match(
    await page.locator("#out").innerText(),
    /^384 numbers by \w+__wasm128; .* keep 20971520000 bytes$/,
  );
  assert.deepEqual(errors, []);
  await context.close();
});
