/** A figure as it is shown: some significant digits, a true minus sign, no "-0". */
export function shown(value: number, digits = 3): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'not a number' : value > 0 ? '∞' : '−∞';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(digits - 1).replace(/-/g, '−');
  const text = size === 0 ? '0' : String(Number(value.toPrecision(digits)));
  return text.replace('-', '−');
}

/** With its sign, also when positive. */
export const signed = (value: number, digits = 3) => (value > 0 ? '+' : '') + shown(value, digits);

/** All digits that the number has. */
export const full = (value: number) => String(value).replace('-', '−');

export const percent = (share: number, digits = 1) => `${(100 * share).toFixed(digits)} %`;
