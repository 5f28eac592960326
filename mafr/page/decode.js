"use strict";
// A sample's packed arrays, see mafr.page.packed.
const decode = (() => {
  const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  async function inflate(bytes) {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // Reads sections in the order in which they were added.
  class Packed {
    static async of(text) {
      const bytes = await inflate(bytesOf(text)).catch(() => {
        throw new Error("its data are damaged");
      });
      return new Packed(bytes);
    }

    constructor(bytes) {
      this.bytes = bytes;
      this.at = 0;
    }

    bits(count) {
      const mask = new Uint8Array(count);
      for (let k = 0; k < count; k++) mask[k] = (this.bytes[this.at + (k >> 3)] >> (7 - (k & 7))) & 1;
      this.at += Math.ceil(count / 8);
      return mask;
    }

    levels(side, {low, step}) {
      const scaled = new Uint8Array(side * side),
        values = new Float32Array(side * side);
      for (let v = 0, k = 0; v < side; v++) {
        for (let u = 0; u < side; u++, k++) {
          const left = u ? scaled[k - 1] : 0,
            above = v ? scaled[k - side] : 0;
          scaled[k] = this.bytes[this.at + k] + left + above - (u && v ? scaled[k - side - 1] : 0);
          values[k] = low + step * scaled[k];
        }
      }
      this.at += scaled.length;
      return values;
    }

    words(count, {low, step}) {
      const values = new Float64Array(count);
      for (let k = 0; k < count; k++) {
        values[k] = low + step * (256 * this.bytes[this.at + k] + this.bytes[this.at + count + k]);
      }
      this.at += 2 * count;
      return values;
    }

    // x, y, z of one point after the other.
    points({count, corner, step}) {
      const places = new Float32Array(3 * count),
        low = this.at + 3 * count;
      for (let axis = 0; axis < 3; axis++) {
        for (let k = 0, sum = 0, n = axis * count; k < count; k++, n++) {
          sum = (sum + 256 * this.bytes[this.at + n] + this.bytes[low + n]) & 65535;
          places[3 * k + axis] = corner[axis] + step * sum;
        }
      }
      this.at += 6 * count;
      return places;
    }
  }

  // The pixel of each point of a cloud: of those that are set, where (row + slant x column) % step is 0.
  function lattice(mask, side, [step, slant]) {
    const pixels = [];
    for (let v = 0, k = 0; v < side; v++) {
      for (let u = 0; u < side; u++, k++) if (mask[k] && (v + slant * u) % step === 0) pixels.push(k);
    }
    return pixels;
  }

  // A value as the newest of at most `most` in a map.
  function keep(map, key, value, most) {
    map.delete(key);
    map.set(key, value);
    if (map.size > most) map.delete(map.keys().next().value);
    return value;
  }

  async function picture(address) {
    const image = new Image();
    image.src = address;
    await image.decode();
    return image;
  }

  return {Packed, lattice, keep, picture, bytesOf};
})();
