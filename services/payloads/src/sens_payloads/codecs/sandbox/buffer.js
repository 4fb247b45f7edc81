// The part of Node's Buffer that ChirpStack offers to codecs: reading numbers, and texts as hex, base64, ASCII, Latin-1 and UTF-8.
(function (global) {
  "use strict";
  const BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

  function bytesOf(string, encoding) {
    const bytes = [];
    switch (encoding) {
      case "hex":
        for (let i = 0; i + 1 < string.length; i += 2) {
          const byte = parseInt(string.substr(i, 2), 16);
          if (byte !== byte) break;
          bytes.push(byte);
        }
        break;
      case "base64":
      case "base64url": {
        let bits = 0, held = 0;
        for (const character of string) {
          const value = BASE64.indexOf(character === "-" ? "+" : character === "_" ? "/" : character);
          if (value < 0) continue;
          held = (held << 6) | value;
          bits += 6;
          if (bits >= 8) bytes.push((held >> (bits -= 8)) & 255);
        }
        break;
      }
      case "ascii":
      case "latin1":
      case "binary":
        for (let i = 0; i < string.length; i++) bytes.push(string.charCodeAt(i) & 255);
        break;
      default: {
        const encoded = unescape(encodeURIComponent(string));
        for (let i = 0; i < encoded.length; i++) bytes.push(encoded.charCodeAt(i));
      }
    }
    return bytes;
  }

  function utf8(latin1) {
    try {
      return decodeURIComponent(escape(latin1));
    } catch (_) { // what is not UTF-8 becomes U+FFFD
      return latin1.replace(/[\x80-\xff]/g, "\ufffd");
    }
  }

  class Buffer extends Uint8Array {
    static from(source, encoding, length) {
      if (typeof source === "string") source = bytesOf(source, encoding || "utf8");
      if (source instanceof ArrayBuffer) return new Buffer(source, encoding, length);
      const buffer = new Buffer(source.length);
      for (let i = 0; i < source.length; i++) buffer[i] = source[i];
      return buffer;
    }
    static alloc(size, fill) {
      const buffer = new Buffer(size);
      return fill ? buffer.fill(fill) : buffer;
    }
    static isBuffer(value) {
      return value instanceof Buffer;
    }
    static byteLength(string, encoding) {
      return Buffer.from(string, encoding).length;
    }
    static concat(buffers) {
      const all = [];
      for (const buffer of buffers) for (let i = 0; i < buffer.length; i++) all.push(buffer[i]);
      return Buffer.from(all);
    }
    slice(start, end) {
      return this.subarray(start, end);
    }
    equals(other) {
      return this.length === other.length && this.every((byte, i) => byte === other[i]);
    }
    toString(encoding, start = 0, end = this.length) {
      let latin1 = "", hex = "", base64 = "";
      for (let i = start; i < end && i < this.length; i++) {
        latin1 += String.fromCharCode(encoding === "ascii" ? this[i] & 127 : this[i]);
        hex += (this[i] < 16 ? "0" : "") + this[i].toString(16);
      }
      if (encoding === "hex") return hex;
      if (encoding === "ascii" || encoding === "latin1" || encoding === "binary") return latin1;
      if (encoding !== "base64") return utf8(latin1);
      for (let i = 0; i < latin1.length; i += 3) {
        const group = (latin1.charCodeAt(i) << 16) | (latin1.charCodeAt(i + 1) << 8) | latin1.charCodeAt(i + 2);
        for (let j = 0; j < 4; j++) base64 += i + j > latin1.length ? "=" : BASE64[(group >> (18 - 6 * j)) & 63];
      }
      return base64;
    }
    toJSON() {
      return { type: "Buffer", data: Array.from(this) };
    }
    readUIntBE(offset, length) {
      let value = 0;
      for (let i = 0; i < length; i++) value = value * 256 + at(this, offset + i);
      return value;
    }
    readUIntLE(offset, length) {
      let value = 0;
      for (let i = length - 1; i >= 0; i--) value = value * 256 + at(this, offset + i);
      return value;
    }
    readIntBE(offset, length) {
      const value = this.readUIntBE(offset, length);
      return value < 2 ** (8 * length - 1) ? value : value - 2 ** (8 * length);
    }
    readIntLE(offset, length) {
      const value = this.readUIntLE(offset, length);
      return value < 2 ** (8 * length - 1) ? value : value - 2 ** (8 * length);
    }
  }

  function at(buffer, offset) {
    if (!(offset >= 0 && offset < buffer.length)) {
      throw new RangeError(`The value of "offset" is out of range: ${offset} of ${buffer.length} bytes`);
    }
    return buffer[offset];
  }

  function method(names, read) {
    for (const name of names) Object.defineProperty(Buffer.prototype, name, { value: read, writable: true, configurable: true });
  }
  for (const [size, length] of [["8", 1], ["16", 2], ["32", 4]]) {
    for (const order of length === 1 ? [""] : ["BE", "LE"]) {
      const suffix = order || "BE";
      method([`readUInt${size}${order}`, `readUint${size}${order}`], function (offset = 0) {
        return this["readUInt" + suffix](offset, length);
      });
      method([`readInt${size}${order}`], function (offset = 0) {
        return this["readInt" + suffix](offset, length);
      });
    }
  }
  for (const [type, length] of [["Float", 4], ["Double", 8], ["BigInt64", 8], ["BigUint64", 8]]) {
    const get = DataView.prototype["get" + (type === "Float" ? "Float32" : type === "Double" ? "Float64" : type)];
    for (const order of ["BE", "LE"]) {
      method([`read${type}${order}`, `read${type.replace("Uint", "UInt")}${order}`], function (offset = 0) {
        at(this, offset + length - 1);
        return get.call(new DataView(this.buffer, this.byteOffset, this.length), offset, order === "LE");
      });
    }
  }
  Object.defineProperty(global, "Buffer", { value: Buffer, writable: true, configurable: true, enumerable: false });
})(globalThis);
