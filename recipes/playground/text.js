// An adapter's text, `tl1:` and base64url, for the adapters of this page alone: what is the same in
// all texts of a space is given as bytes (`head`, `tail`), and v stands between. The layout is that
// of tinylora.adapter.text.

const VERSION = 1;
const STORES = [{ bytes: 4, read: (view, at) => view.getFloat32(at, true) }, { bytes: 2, read: bf16At }, { bytes: 2, read: fp16At }];

export function encode({ head, tail }, values) {
  const isShort = values.every((x) => (floatBits(x) & 0xffff) === 0 && Math.fround(x) === x);
  const numbers = new Uint8Array(values.length * (isShort ? 2 : 4)), view = new DataView(numbers.buffer);
  values.forEach((x, i) => (isShort ? view.setUint16(2 * i, floatBits(x) >>> 16, true) : view.setFloat32(4 * i, x, true)));
  const body = Uint8Array.from([VERSION, isShort ? 1 : 0, ...head, ...numbers, ...tail]);
  const crc = new Uint8Array(4);
  new DataView(crc.buffer).setUint32(0, crc32(body), true);
  const binary = String.fromCharCode(...body, ...crc);
  return `tl1:${btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
}

// The space and the numbers of a text; an error that says why where it is of no space here.
export function decode(spaces, text) {
  const digits = text.replace(/\s/g, "");
  if (!digits.startsWith("tl1:")) {
    throw new Error(`${digits.slice(0, 20)} does not begin with tl1:, so it is not an adapter's text. Copy the whole line.`);
  }
  const bytes = bytesOf(digits.slice(4));
  const body = bytes.subarray(0, -4);
  if (bytes.length < 8 || new DataView(bytes.buffer).getUint32(bytes.length - 4, true) !== crc32(body)) {
    throw new Error("The text is damaged: its checksum does not match, so a character is mistyped, missing or added. Copy it again.");
  }
  const store = STORES[body[1]];
  const place = spaces.findIndex(({ head, tail, count }) => store && body[0] === VERSION
    && body.length === 2 + head.length + count * store.bytes + tail.length
    && head.every((byte, i) => body[2 + i] === byte)
    && tail.every((byte, i) => body[body.length - tail.length + i] === byte));
  if (place < 0) {
    throw new Error('This adapter has other settings, or another base model, than those of this page. Open it with "tinylora play".');
  }
  const { head, count } = spaces[place], view = new DataView(bytes.buffer);
  const values = Array.from({ length: count }, (_, i) => store.read(view, 2 + head.length + i * store.bytes));
  if (!values.every(Number.isFinite)) throw new Error("The text has a number that is inf or nan. Use another adapter.");
  return { space: place, values };
}

function bytesOf(digits) {
  try {
    return Uint8Array.from(atob(digits.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  } catch {
    return new Uint8Array(0);
  }
}

function floatBits(x) {
  return new Uint32Array(new Float32Array([x]).buffer)[0];
}

function bf16At(view, at) {
  return new Float32Array(new Uint32Array([view.getUint16(at, true) << 16]).buffer)[0];
}

function fp16At(view, at) {
  const bits = view.getUint16(at, true), sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, rest = bits & 1023;
  if (exponent === 31) return rest ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + rest / 1024) : (2 ** -14 * rest) / 1024);
}

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let k = 0; k < 8; k++) crc = (crc >>> 1) ^ (0xedb88320 & -(crc & 1));
  }
  return ~crc >>> 0;
}
