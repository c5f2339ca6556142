#!/usr/bin/env bash
# Builds the WebAssembly module, the npm package and the page:
#
#   build/web/package   what `npm publish` would take
#   build/web/site      the page as a folder of ES modules, for any web server
#   build/web/qkv.html  the page as one file that works from anywhere, without a network
#
#   tools/web.sh         builds them
#   tools/web.sh serve   and serves the page at http://127.0.0.1:8080/
set -euo pipefail
cd "$(dirname "$0")/.."
build=${WASM_BUILD:-wasm}
out=build/web

TARGETS=${WASM_TARGETS-web/qkv.wasm} tools/build.sh "$build" --cross-file tools/cross/wasm32.ini \
    -Dmodel=false -Dcli=false -Dwerror=true

mkdir -p $out
if ! cmp -s web/package-lock.json $out/.installed; then
    cp web/package.json web/package-lock.json $out/
    npm ci --prefix $out --ignore-scripts --no-audit --no-fund --loglevel=error
    cp web/package-lock.json $out/.installed
fi

rm -rf $out/package $out/site
mkdir -p $out/package $out/site
cp -r web/lib web/examples web/package.json web/README.md LICENSE $out/package/
install -m 644 "build/$build/web/qkv.wasm" $out/package/lib/qkv.wasm
node web/build.mjs $out
if [ "${1:-}" = serve ]; then
    exec node web/serve.mjs $out/site 8080
fi
