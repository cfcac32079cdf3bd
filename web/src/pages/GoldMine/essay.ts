// The essay's own tables, "Mining for Meaning", as printed there. They are an illustration: no network made them.
export const WORDS = ['The', 'Cat', 'Chases', 'Mice'];
export const LAYERS: { name: string; rows: [number, number, number, number][]; said: string }[] = [
  { name: 'Layer 0: Raw Material Collection', rows: [[2, 0, 1, -1], [5, 7, 2, 4], [4, 8, 3, 5], [3, 6, 2, 3]], said: '' },
  { name: 'Layer 1: The Coarse Gravel Sifter', rows: [[1, 0, 0, -2], [6, 8, 3, 3], [5, 9, 4, 6], [4, 7, 3, 4]], said: 'Each word’s representation now contains traces of its neighbors.' },
  { name: 'Layer 2: The Pebble Separator', rows: [[0, -1, -2, -3], [7, 9, 5, 4], [6, 10, 6, 7], [5, 8, 5, 5]], said: 'Notice the alignment forming between “Cat” and “Chases”?' },
  { name: 'Layer 3: The Fine Mesh Sieve', rows: [[-1, -2, -3, -4], [9, 10, 6, 5], [8, 11, 7, 8], [7, 10, 6, 6]], said: '“The” drifting toward negative values while content words gain definition.' },
  { name: 'Layer 4: The Mercury Amalgamation', rows: [[0, 0, 0, 0], [11, 12, 8, 7], [10, 13, 9, 10], [9, 12, 8, 8]], said: 'The article “the” has been completely zeroed out.' },
  { name: 'Layer 5: The Final Refining', rows: [[0, 0, 0, 0], [13, 14, 10, 9], [12, 15, 11, 12], [11, 14, 10, 10]], said: 'Pure semantic gold.' },
];
export function cosine(a: number[], b: number[]): number {
  const dot = (x: number[], y: number[]) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}
