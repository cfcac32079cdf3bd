// Where the names of marks stand: above if there is room, else below, right or left, so that none covers another.
export interface Mark { x: number; y: number; r: number; wide: number }
export interface Place { dx: number; dy: number; anchor: 'start' | 'middle' | 'end' }
type Box = [left: number, top: number, right: number, bottom: number];

const HIGH = 16; // of a line of text
const shared = (a: Box, b: Box) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));

export function labelled(marks: Mark[], width: number, height: number): Place[] {
  const taken: Box[] = marks.map(({ x, y, r }) => [x - r, y - r, x + r, y + r]);
  return marks.map(({ x, y, r, wide }, own) => {
    const middle = (top: number): [Place, Box] => {
      const left = Math.min(width - wide - 4, Math.max(4, x - wide / 2)); // inside the picture
      return [{ dx: left + wide / 2 - x, dy: top + 12 - y, anchor: 'middle' }, [left, top, left + wide, top + HIGH]];
    };
    const choices: [Place, Box][] = [
      middle(y - r - HIGH - 1),
      middle(y + r + 2),
      [{ dx: r + 5, dy: 5, anchor: 'start' }, [x + r + 4, y - HIGH / 2, x + r + 6 + wide, y + HIGH / 2]],
      [{ dx: -r - 5, dy: 5, anchor: 'end' }, [x - r - 6 - wide, y - HIGH / 2, x - r - 4, y + HIGH / 2]],
    ];
    const outside = ([left, top, right, bottom]: Box) => (Math.max(0, -left) + Math.max(0, right - width)) * HIGH + (Math.max(0, -top) + Math.max(0, bottom - height)) * wide;
    const covers = choices.map(([, box]) => outside(box) + taken.reduce((sum, other, i) => sum + (i === own ? 0 : shared(box, other)), 0));
    const [place, box] = choices[covers.indexOf(Math.min(...covers))]!;
    taken.push(box);
    return place;
  });
}
