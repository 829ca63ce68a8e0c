// From whatever a person dropped, pasted or chose to an image that the service takes.

// The model looks at far fewer pixels than this: a photograph of a telephone loses nothing that it could see.
const LONGEST_SIDE = 1600;
const SCALE_FROM = 2048;
const QUALITY = 0.92;

const KINDS = [
  ["image/jpeg", [0xff, 0xd8, 0xff]],
  ["image/png", [0x89, 0x50, 0x4e, 0x47]],
  ["image/gif", [0x47, 0x49, 0x46, 0x38]],
  ["image/bmp", [0x42, 0x4d]],
];

/** What can be told to a person about a file that is no picture. */
export class NotAPicture extends Error {}

/** The pictures among dropped or pasted files. */
export function picturesOf(files) {
  return [...(files ?? [])].filter((file) => file.type.startsWith("image/") || file.type === "");
}

/**
 * An image within the service's limits: { blob, name, width, height, note }.
 *
 * A file that fits goes as it is, byte for byte. A larger one is drawn smaller, upright (its EXIF orientation is applied, for the
 * drawing keeps no EXIF data); one of a kind that only the browser reads (WebP, AVIF, HEIC) becomes a JPEG.
 */
export async function prepare(file, limits) {
  if (!file.size) throw new NotAPicture(`${file.name || "The file"} is empty.`);
  const type = await kindOf(file);
  const bitmap = await decode(file);
  const accepted = type != null && limits.types.includes(type);
  if (!bitmap) {
    if (!accepted) throw new NotAPicture(`${file.name || "The file"} is not a picture that can be read here.`);
    return { blob: new Blob([file], { type }), name: file.name, width: null, height: null, note: "" };
  }
  const { width, height } = bitmap;
  const fits = file.size <= limits.max_bytes && width * height <= limits.max_pixels;
  const longest = Math.max(width, height);
  try {
    if (accepted && fits && (longest <= SCALE_FROM || type === "image/gif")) {
      return { blob: new Blob([file], { type }), name: file.name, width, height, note: "" };
    }
    const drawn = await redraw(bitmap, type === "image/png" ? "image/png" : "image/jpeg", limits);
    const scaled = drawn.width !== width || drawn.height !== height;
    const note = scaled ? `scaled from ${width} × ${height}` : "converted to JPEG";
    return { ...drawn, name: file.name, note };
  } finally {
    bitmap.close();
  }
}

async function kindOf(file) {
  const start = new Uint8Array(await file.slice(0, 8).arrayBuffer());
  return KINDS.find(([, magic]) => magic.every((byte, i) => start[i] === byte))?.[0] ?? null;
}

async function decode(file) {
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return null;
  }
}

async function redraw(bitmap, type, limits) {
  const canvas = document.createElement("canvas");
  let scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  scale = Math.min(scale, Math.sqrt(limits.max_pixels / (bitmap.width * bitmap.height)));
  for (let kind = type; ; scale *= 0.7, kind = "image/jpeg") {
    canvas.width = Math.max(1, Math.floor(bitmap.width * scale));
    canvas.height = Math.max(1, Math.floor(bitmap.height * scale));
    const pen = canvas.getContext("2d");
    pen.imageSmoothingQuality = "high";
    if (kind === "image/jpeg") {
      // A JPEG has no transparency, and unpainted canvas would come out black.
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, canvas.width, canvas.height);
    }
    pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, kind, QUALITY));
    if (blob && (blob.size <= limits.max_bytes || canvas.width * canvas.height <= 4096)) {
      return { blob, width: canvas.width, height: canvas.height };
    }
  }
}
