// What a neuron of a toy net is called, and what its activation computes.
import type { Neuron } from '../../state/toys.svelte';

export const named = ({ layer, unit }: Neuron, last = Infinity) => (layer < 0 ? `x${'₁₂'[unit]}` : layer === last ? 'output' : `layer ${layer + 1} neuron ${unit + 1}`);

export const FORMULAS: Record<string, [name: string, formula: string]> = {
  tanh: ['tanh', '(e^sum − e^−sum) ÷ (e^sum + e^−sum)'],
  sigmoid: ['sigmoid', '1 ÷ (1 + e^−sum)'],
  relu: ['ReLU', 'the sum, or 0 when it is below 0'],
  leaky_relu: ['leaky ReLU', 'the sum, or a hundredth of it when it is below 0'],
  gelu: ['GELU', 'sum × the share of a normal distribution below it'],
  identity: ['none', 'the sum as it is'],
};
