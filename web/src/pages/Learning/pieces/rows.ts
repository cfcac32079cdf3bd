// Grids of one road in rows: as few as their numbers allow, as large as they fit, and no last grid left alone.
export interface Width {
  columns: number;
  base: number; // of a cell, in pixels
  extra: number; // its sign, its row names
}
const GAP = 10;
export const NAMES = 84; // for the names of the rows
export const LEAST = 26; // a smaller cell's number cannot be read

/** A cell of this grid on a page of middling width: small kernels are drawn larger. */
export const baseOf = ({ rows, columns }: { rows: number; columns: number }) => (rows === 1 && columns <= 3 ? 52 : columns <= 3 ? 38 : columns <= 6 ? 34 : 30);
const wide = (one: Width, scale: number) => Math.max(LEAST, Math.floor(one.base * scale)) * one.columns + one.extra + GAP;
/** Where rows begin when each is filled before the next. */
const filled = (all: Width[], scale: number, room: number): number[] => {
  const starts: number[] = [];
  let used = Infinity;
  all.forEach((one, i) => {
    const width = wide(one, scale);
    if (used + width > room) {
      starts.push(i);
      used = 0;
    }
    used += width;
  });
  return starts;
};

/** How large the cells are, and before which grids a row begins. */
export function inRows(all: Width[], room: number, most: number): { scale: number; starts: number[] } {
  let scale = 0.87;
  const rows = filled(all, scale, room).length;
  for (let larger = scale; larger <= most; larger += 0.02) if (filled(all, larger, room).length <= rows) scale = larger;
  // As many rows, as even as they can be: the narrowest room that still takes no more.
  let narrow = room;
  while (narrow > room / 4 && filled(all, scale, narrow - 12).length <= rows) narrow -= 12;
  return { scale, starts: filled(all, scale, narrow) };
}
