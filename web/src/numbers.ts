/** A figure as it is shown: some significant digits, a true minus sign, no "-0". */
export function shown(value: number, digits = 3): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'not a number' : value > 0 ? '∞' : '−∞';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e6)) return value.toExponential(digits - 1).replace(/-/g, '−');
  const text = size === 0 ? '0' : String(Number(value.toPrecision(digits)));
  return text.replace('-', '−');
}

/** In four characters or so, for a cell of that many pixels; what is too small for it is "≈0". */
export function brief(value: number, cell = 0): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? '×' : value > 0 ? '∞' : '−∞';
  const size = Math.abs(value);
  if (size === 0) return '0';
  const two = shown(value, 2).replace(/^(−?)0\./, '$1.');
  if (size < 0.005) return cell >= 50 && two.length <= 6 ? two : '≈0';
  const text = size >= 1000 ? value.toExponential(0).replace('e+', 'e') : size >= 9.95 ? value.toFixed(0) : size >= 0.995 ? value.toFixed(1) : value.toFixed(2);
  return text.replace('-', '−').replace(/\.0$/, '').replace(/^(−?)0\./, '$1.');
}

/** What a sum's term is multiplied by: ["÷ 6", true] for a sixth, ["0.4", false] before the others, ["", false] for 1. */
export function scaledBy(coefficient: number): [text: string, after: boolean] {
  const whole = Math.round(1 / coefficient);
  if (coefficient === 1) return ['', false];
  return Math.abs(coefficient) < 1 && Math.abs(coefficient * whole - 1) < 1e-12 && whole > 0 ? [`÷ ${whole}`, true] : [shown(coefficient, 4), false];
}

/** With its sign, also when positive. */
export const signed = (value: number, digits = 3) => (value > 0 ? '+' : '') + shown(value, digits);

/** All digits that the number has. */
export const full = (value: number) => String(value).replace('-', '−');

export const percent = (share: number, digits = 1) => `${(100 * share).toFixed(digits)} %`;
