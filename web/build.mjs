// build.mjs - the page from its sources:  node web/build.mjs OUT
//
// OUT/site is a folder of plain ES modules; OUT/qkv.html the same in one file: modules bundled, style and
// WebAssembly inside.  OUT has node_modules and package already (tools/web.sh).
import { cp, mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";

const out = resolve(process.argv[2]);
const source = fileURLToPath(new URL("./page/", import.meta.url));
const configs = fileURLToPath(new URL("../tests/sizing/configs/", import.meta.url));
const { build } = createRequire(`${out}/`)("esbuild");

/** The presets are the configurations that the tests of sizing use. */
async function presets() {
  const names = (await readdir(configs)).filter((name) => name.endsWith(".json")).sort();
  const entries = await Promise.all(
    names.map(async (name) => [
      name.replace(/\.json$/, ""),
      JSON.parse(await readFile(configs + name, "utf8")),
    ]),
  );
  return `// Made by web/build.mjs of tests/sizing/configs.\nexport const presets = ${JSON.stringify(
    Object.fromEntries(entries),
    null,
    1,
  )};\n`;
}

async function site() {
  await cp(source, `${out}/site`, { recursive: true });
  await cp(`${out}/package/lib`, `${out}/site/lib`, { recursive: true });
  await mkdir(`${out}/site/vendor`, { recursive: true });
  await cp(`${out}/node_modules/uplot/dist/uPlot.esm.js`, `${out}/site/vendor/uPlot.esm.js`);
  await cp(`${out}/node_modules/uplot/dist/uPlot.min.css`, `${out}/site/vendor/uPlot.min.css`);
  await cp(`${out}/node_modules/uplot/LICENSE`, `${out}/site/vendor/uPlot-LICENSE`);
  await writeFile(`${out}/site/presets.js`, await presets());
}

async function singleFile() {
  const bundle = await build({
    entryPoints: [`${out}/site/main.js`],
    bundle: true,
    format: "esm",
    write: false,
    minify: true,
    legalComments: "inline",
    alias: { uplot: `${out}/site/vendor/uPlot.esm.js` },
    external: ["node:fs/promises"],
    target: "es2022",
  });
  const script = bundle.outputFiles[0].text.replaceAll("</script", "<\\/script");
  const css =
    (await readFile(`${out}/site/vendor/uPlot.min.css`, "utf8")) +
    (await readFile(`${out}/site/page.css`, "utf8"));
  const wasm = (await readFile(`${out}/package/lib/qkv.wasm`)).toString("base64");
  const html = (await readFile(`${out}/site/index.html`, "utf8"))
    .replace(/<link rel="stylesheet"[^>]*>\s*/g, "")
    .replace(/<script type="importmap">[\s\S]*?<\/script>\s*/, "")
    .replace("</head>", () => `<style>\n${css}</style>\n</head>`)
    .replace(
      /<script type="module"[^>]*><\/script>/,
      () =>
        `<script id="wasm" type="application/octet-stream">${wasm}</script>\n<script type="module">\n${script}</script>`,
    );
  await writeFile(`${out}/qkv.html`, html);
}

await site();
await singleFile();
