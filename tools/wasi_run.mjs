// Runs a test program that was compiled for WASI:  node tools/wasi_run.mjs PROGRAM ARGUMENT...
//
// It offers what a program needs of WASI that reads its arguments and environment and prints.  Node's own
// node:wasi was tried: under 20.20 test_pages printed all it should and then crashed Node (a collected
// object on the stack), with several compiler flags.
import { readFileSync, writeSync } from "node:fs";
import { basename } from "node:path";

const [program, ...rest] = process.argv.slice(2);
const args = [basename(program), ...rest];
const environment = Object.entries(process.env).map(([name, value]) => `${name}=${value}`);
const SUCCESS = 0,
  BAD_DESCRIPTOR = 8,
  NOT_SEEKABLE = 29; // permanent numbers of WASI preview 1
let memory;

const view = () => new DataView(memory.buffer);
const bytes = (at, n) => new Uint8Array(memory.buffer, at, n);
const encoded = (list) => list.map((text) => Buffer.from(`${text}\0`));

function sizes(list, countAt, bytesAt) {
  view().setUint32(countAt, list.length, true);
  view().setUint32(
    bytesAt,
    encoded(list).reduce((sum, text) => sum + text.length, 0),
    true,
  );
  return SUCCESS;
}

function copy(list, pointersAt, textAt) {
  encoded(list).forEach((text, i) => {
    view().setUint32(pointersAt + 4 * i, textAt, true);
    bytes(textAt, text.length).set(text);
    textAt += text.length;
  });
  return SUCCESS;
}

function write(descriptor, vectors, count, writtenAt) {
  if (descriptor !== 1 && descriptor !== 2) return BAD_DESCRIPTOR;
  let written = 0;
  for (let i = 0; i < count; i++) {
    const at = view().getUint32(vectors + 8 * i, true);
    const n = view().getUint32(vectors + 8 * i + 4, true);
    for (let done = 0; done < n; ) done += writeSync(descriptor, bytes(at + done, n - done));
    written += n;
  }
  view().setUint32(writtenAt, written, true);
  return SUCCESS;
}

/* A character device, so that the C library buffers by lines. */
function describe(descriptor, at) {
  bytes(at, 24).fill(0);
  view().setUint8(at, 2);
  return descriptor <= 2 ? SUCCESS : BAD_DESCRIPTOR;
}

const wasi = {
  args_sizes_get: (count, size) => sizes(args, count, size),
  args_get: (pointers, text) => copy(args, pointers, text),
  environ_sizes_get: (count, size) => sizes(environment, count, size),
  environ_get: (pointers, text) => copy(environment, pointers, text),
  clock_time_get: (clock, precision, at) => {
    view().setBigUint64(at, BigInt(Date.now()) * 1000000n, true);
    return SUCCESS;
  },
  fd_write: write,
  fd_fdstat_get: describe,
  fd_seek: () => NOT_SEEKABLE,
  fd_close: () => SUCCESS,
  proc_exit: (status) => process.exit(status),
};
const module = new WebAssembly.Module(readFileSync(program));
const instance = new WebAssembly.Instance(module, { wasi_snapshot_preview1: wasi });
memory = instance.exports.memory;
instance.exports._start();
