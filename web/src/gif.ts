// Moving pictures of what is on the screen: SVG frames, drawn one by one, become one GIF.
import { GIFEncoder, applyPalette, quantize } from 'gifenc';

export interface Frame {
  svg: string;
  /** How long it stays, in milliseconds. */
  hold: number;
}

/** An SVG element as text that keeps its colours outside this page. */
export function standalone(drawn: SVGSVGElement): string {
  const copy = drawn.cloneNode(true) as SVGSVGElement;
  const live = [drawn, ...drawn.querySelectorAll('*')];
  [copy, ...copy.querySelectorAll('*')].forEach((node, i) => {
    const style = getComputedStyle(live[i]!);
    for (const name of ['fill', 'stroke', 'stroke-width', 'stroke-opacity', 'stroke-dasharray', 'font-size', 'font-family', 'font-weight', 'paint-order', 'transform'])
      (node as SVGElement).style.setProperty(name, style.getPropertyValue(name));
  });
  copy.style.background = getComputedStyle(document.documentElement).getPropertyValue('--ground').trim();
  copy.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  return copy.outerHTML;
}

async function pixels(svg: string, width: number, height: number): Promise<Uint8ClampedArray> {
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext('2d', { willReadFrequently: true })!;
  pen.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--ground').trim();
  pen.fillRect(0, 0, width, height);
  pen.drawImage(image, 0, 0, width, height);
  return pen.getImageData(0, 0, width, height).data;
}

/** Frames as one GIF that plays for ever; `done` hears how many are ready. */
export async function gifOf(frames: Frame[], width: number, height: number, done: (count: number) => void): Promise<Blob> {
  const encoder = GIFEncoder();
  for (const [i, frame] of frames.entries()) {
    const data = await pixels(frame.svg, width, height);
    const palette = quantize(data, 128);
    encoder.writeFrame(applyPalette(data, palette), width, height, { palette, delay: frame.hold });
    done(i + 1);
    await new Promise((resolve) => setTimeout(resolve)); // the page stays alive
  }
  encoder.finish();
  return new Blob([encoder.bytes() as Uint8Array<ArrayBuffer>], { type: 'image/gif' });
}
